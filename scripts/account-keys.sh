# shellcheck shell=bash
# On the first server: prints the public keys that sign the cluster's ServiceAccount tokens, as a JSON Web Key Set.
# RKE2's API server answers nobody without a login, so whoever verifies such tokens cannot ask it for them.

KUBECTL=/var/lib/rancher/rke2/bin/kubectl
CONFIG=/etc/rancher/rke2/rke2.yaml

main() {
  local text
  payload_read
  require_text cluster timeout_seconds
  number timeout_seconds
  must_be_root
  wait_until "${V[timeout_seconds]}" "the API server" answers || die "the API server of ${V[cluster]} does not say its keys" "read the journal of rke2-server on this machine"
  text=$(key_set)
  [[ $text == *'"keys":['*'"kty"'* ]] || die "the key set of ${V[cluster]} holds no key: ${text:0:200}" "look at it: kubectl get --raw /openid/v1/jwks"
  reply "$text"
}

key_set() { "$KUBECTL" --kubeconfig "$CONFIG" --request-timeout=20s get --raw /openid/v1/jwks; }

answers() { key_set > /dev/null 2>&1; }
