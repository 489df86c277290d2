# shellcheck shell=bash
# Compares the facts of all hosts, as preflight.sh wrote them: what must be unique and is not is named with
# both hosts. Runs on the operator's machine, without root, and changes nothing anywhere.
#
# Facts are recorded; a machine may have been corrected since. So those that are refused are asked once more, by SSH,
# with the host keys that were recorded. Whoever is alone with all that it has is not asked.

declare -gA ADDRESS=() FACTS=() SUSPECTS=() SEEN=()
NAMES=()
DUPLICATES=()
NOTES=()
BASTION=

main() {
  local item
  payload_read
  require_text facts machines host_keys user port private_key
  number port
  read_machines
  compare_all
  if ((${#SUSPECTS[@]})); then
    ask_again
    compare_all
  fi
  if ((${#DUPLICATES[@]})); then
    say "error: hosts share what must be unique (asked just now):"
    for item in "${DUPLICATES[@]}" ${NOTES[@]+"${NOTES[@]}"}; do say "  - $item"; done
    say "what to do: correct one of each two as it says, then run again"
    exit 1
  fi
  unchanged "${#NAMES[@]} hosts, all different"
}

# read_machines: the lines of `facts` and `host_keys` are in the order of those of `machines`.
read_machines() {
  local name address n=0 facts keys
  list facts
  facts=("${LIST[@]}")
  list host_keys
  keys=("${LIST[@]}")
  list machines
  ((${#facts[@]} == ${#LIST[@]} && ${#keys[@]} == ${#LIST[@]})) || die "${#LIST[@]} machines have ${#facts[@]} lines of facts and ${#keys[@]} host keys" "send one line of each for every machine" 2
  stage
  for item in "${LIST[@]}"; do
    read -r name address <<<"$item"
    [[ -n $BASTION ]] || BASTION=$name
    NAMES+=("$name")
    ADDRESS[$name]=$address
    FACTS[$name]=${facts[n]}
    printf '%s %s\n' "$name" "${keys[n]}" >>"$STAGE/known_hosts"
    n=$((n + 1))
  done
}

compare_all() {
  local name line
  DUPLICATES=()
  SEEN=()
  for name in "${NAMES[@]}"; do
    line=${FACTS[$name]}
    if [[ $(fact name "$line") != "$name" || -z $(fact machine_id "$line") ]]; then
      SUSPECTS[$name]=true
      DUPLICATES+=("what $name said about itself at first contact cannot be read: ${line:0:120}")
      continue
    fi
    compare "machine-id" "$(fact machine_id "$line")" "$name" "a cloned machine keeps it: on one of them empty /etc/machine-id, remove /var/lib/dbus/machine-id, run systemd-machine-id-setup and reboot"
    compare "hostname" "$(fact hostname "$line")" "$name" "rename one of them: hostnamectl set-hostname NAME"
    # The first address is the one of the plan; the others may be those of a container bridge, alike everywhere.
    compare "address" "$(first_address "$line")" "$name" "give one of them another address"
  done
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
    SUSPECTS[$host]=true
    SUSPECTS[${SEEN[$key]}]=true
  else
    SEEN[$key]=$host
  fi
}

# ---- asking -----------------------------------------------------------------------------------

ask_again() {
  local name said address
  command -v ssh >/dev/null || die "ssh is not installed on this machine, and the machines ${!SUSPECTS[*]} have to be asked again" "install OpenSSH's client"
  # Without a name, so that nothing is left of it when this run is killed.
  (umask 077 && printf '%s\n' "${V[private_key]%$'\n'}" >"$STAGE/private_key")
  exec {KEY}<"$STAGE/private_key"
  rm -f -- "$STAGE/private_key"
  for name in "${NAMES[@]}"; do
    [[ -v SUSPECTS[$name] ]] || continue
    if said=$(ask "$name") && [[ $said == *'----- opstella facts -----'$'\n'*$'\n'* ]]; then
      said=${said##*'----- opstella facts -----'$'\n'}
      address=$(first_address "${FACTS[$name]}")
      FACTS[$name]="{\"name\":$(json_string "$name"),\"hostname\":$(json_string "${said%%$'\n'*}"),\"machine_id\":$(json_string "${said#*$'\n'}"),\"addresses\":[$(json_string "${address:-${ADDRESS[$name]}}")]}"
    else
      NOTES+=("$name could not be asked again, so this may be over: $(tail -n 1 "$STAGE/ssh")")
    fi
  done
}

# ask NAME: host name and machine id of today.
ask() {
  local options
  options=(-F /dev/null -i "/proc/$$/fd/$KEY" -l "${V[user]}" -p "${V[port]}" -o BatchMode=yes -o IdentitiesOnly=yes -o IdentityAgent=none
    -o StrictHostKeyChecking=yes -o "UserKnownHostsFile=$STAGE/known_hosts" -o GlobalKnownHostsFile=/dev/null -o ConnectTimeout=15 -o ServerAliveInterval=5)
  [[ $1 == "$BASTION" ]] || options+=(-o "ProxyCommand=$(printf '%q ' ssh "${options[@]}" -o "HostKeyAlias=$BASTION" -W '[%h]:%p' "${ADDRESS[$BASTION]}")")
  ssh "${options[@]}" -o "HostKeyAlias=$1" "${ADDRESS[$1]}" "echo '----- opstella facts -----'; cat /proc/sys/kernel/hostname /etc/machine-id" 2>"$STAGE/ssh" </dev/null
}
