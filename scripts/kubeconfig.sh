# shellcheck shell=bash
# On the first server: prints the administrator's kubeconfig, pointing at the given address. Standard
# output is a secret.

main() {
  local path=/etc/rancher/rke2/rke2.yaml text
  payload_read
  require_text server_url
  [[ ${V[server_url]} =~ ^https://[A-Za-z0-9.:_-]+$ ]] || die "the value 'server_url' is '${V[server_url]}'" "write https://NAME:6443" 2
  must_be_root
  wait_until 30 "$path" test -s "$path" || die "there is no $path on this host" "install the first RKE2 server here, or look at: journalctl -u rke2-server"
  text=$(sed -E "s#^( *server: ).*#\\1${V[server_url]}#" "$path")
  [[ $text == *"server: ${V[server_url]}"* && $text == *certificate-authority-data:* ]] || die "$path is not a kubeconfig of RKE2" "look at it on the host; systemctl restart rke2-server writes it again"
  reply "$text"
}
