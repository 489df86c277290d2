# shellcheck shell=bash
# On a server: prints the hash of the cluster's CA, by which nodes that join verify it. With `absent`, nothing where there is
# no cluster yet.
# `asked_for` is why it is read: the phase runs again when that changes.

TOKEN=/var/lib/rancher/rke2/server/token

main() {
  local found
  payload_read
  require_text cluster absent asked_for
  one_of absent true false
  must_be_root
  found=$(ca_hash "$TOKEN")
  [[ -n $found || ${V[absent]} == true ]] || die "$TOKEN of this server of ${V[cluster]} is missing, or holds no hash of the cluster's CA" "read the journal of rke2-server on this machine, and start it"
  unchanged "the CA of ${V[cluster]}, read for ${V[asked_for]:0:60}"
  reply "$found"
}
