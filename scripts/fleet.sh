# shellcheck shell=bash
# Compares the facts of all hosts, as preflight.sh wrote them: what must be unique and is not is named with
# both hosts. Reads only; runs on the bastion.

declare -gA SEEN=()
DUPLICATES=()

main() {
  local line name number=0 item
  payload_read
  require_text facts
  list facts
  for line in "${LIST[@]}"; do
    number=$((number + 1))
    name=$(fact name "$line")
    [[ -n $name && -n $(fact machine_id "$line") ]] || die "line $number of the facts was not written by the preflight phase" "send its standard output, one line a host" 2
    compare "machine-id" "$(fact machine_id "$line")" "$name" "a cloned machine keeps it: on one of them empty /etc/machine-id, remove /var/lib/dbus/machine-id, run systemd-machine-id-setup and reboot"
    compare "hostname" "$(fact hostname "$line")" "$name" "rename one of them: hostnamectl set-hostname NAME"
    # The first address is the one of the plan; the others may be those of a container bridge, alike everywhere.
    compare "address" "$(first_address "$line")" "$name" "give one of them another address"
    compare "name" "$name" "$name" "give every host its own name in the settings"
  done
  if ((${#DUPLICATES[@]})); then
    say "error: hosts share what must be unique:"
    for item in "${DUPLICATES[@]}"; do say "  - $item"; done
    exit 1
  fi
  unchanged "$number hosts, all different"
}

fact() {
  local pattern="\"$1\":\"([^\"]*)\""
  [[ ! $2 =~ $pattern ]] || printf '%s' "${BASH_REMATCH[1]}"
}

first_address() {
  local pattern='"addresses":\["([^"]*)"'
  [[ ! $1 =~ $pattern ]] || printf '%s' "${BASH_REMATCH[1]}"
}

compare() {
  local kind=$1 value=$2 host=$3 remedy=$4 key="$1=$2"
  if [[ -v SEEN[$key] ]]; then
    DUPLICATES+=("${SEEN[$key]} and $host have the same $kind '$value'; $remedy")
  else
    SEEN[$key]=$host
  fi
}
