# shellcheck shell=bash
# First contact with a target: asks for its host key until it answers. Runs on the bastion, and for the
# bastion itself on the operator's machine, where it needs no root. Standard output is the key and nothing else.

main() {
  local attempts=0 started=$SECONDS kind=ssh-ed25519 key
  payload_read
  require_text name address port timeout_seconds
  optional expected
  number port
  number timeout_seconds
  command -v ssh-keyscan >/dev/null || die "ssh-keyscan is not installed here" "install openssh-client (RHEL family: openssh-clients)"
  stage
  # A given key may be of another kind, and may carry a host name before it or a comment behind it.
  if [[ -n ${V[expected]} ]]; then
    [[ ${V[expected]} =~ (ssh-ed25519|ecdsa-sha2-nistp[0-9]+)[[:space:]]+([A-Za-z0-9+/=]+) ]] || die "the host key given for ${V[name]} is not one" "write it as in known_hosts: ssh-ed25519 AAAA..." 2
    kind=${BASH_REMATCH[1]}
    V[expected]="${BASH_REMATCH[1]} ${BASH_REMATCH[2]}"
  fi
  while true; do
    attempts=$((attempts + 1))
    key=$(scan_key "$kind")
    if [[ -n $key ]]; then
      compare_key "$key"
      reply "$key"
      return
    fi
    ((SECONDS - started < V[timeout_seconds])) || break
    sleep 2
  done
  die "host ${V[name]} (${V[address]} port ${V[port]}) gave no $kind host key: asked $attempts times by ssh-keyscan from $(</proc/sys/kernel/hostname) over $((SECONDS - started)) s; last answer: $(last_answer)" \
    "check that the host runs, that its address is right, that sshd listens on port ${V[port]} and has such a key, and that this machine may reach it"
}

scan_key() {
  local type=${1#ssh-}
  ssh-keyscan -T 5 -t "${type%%-*}" -p "${V[port]}" -- "${V[address]}" 2>"$STAGE/scan" | awk -v kind="$1" '$2 == kind { print $2 " " $3; exit }' || true
}

compare_key() {
  [[ -z ${V[expected]} || $1 == "${V[expected]}" ]] || die "host ${V[name]} (${V[address]} port ${V[port]}) answers with the host key $(fingerprint "$1"), but the settings give $(fingerprint "${V[expected]}")" \
    "if the machine was installed anew, put its new key into the settings; otherwise somebody else answers at that address"
}

fingerprint() { ssh-keygen -l -f - <<<"$1" | awk '{ print $2 }'; }

# ssh-keyscan often says nothing at all: then a plain connection tells refused from silent.
last_answer() {
  local line
  line=$(grep -v '^#' "$STAGE/scan" | tail -n 1 || true)
  # shellcheck disable=SC2016 # expanded by the inner bash
  [[ -n $line ]] || line=$(timeout 5 bash -c 'exec 3<>"/dev/tcp/$1/$2"' bash "${V[address]}" "${V[port]}" 2>&1 | sed -n 's/.*: //p' | tail -n 1) || true
  printf '%s' "${line:-none (silence)}"
}
