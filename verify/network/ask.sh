# shellcheck shell=bash
# Knocks at ports of other hosts and says what came back. For a host that has bash and coreutils only, as any user.
#
#   bash -s -- PAUSE PATIENCE MOST TOKEN
#
# Standard input, behind this text: lines `tcp|udp|icmp ADDRESS PORT`. PAUSE are the seconds between two packets, PATIENCE
# those from the last packet of a batch to its end, MOST the connections of a batch. A datagram holds TOKEN, and nobody
# waits for an answer to it. Prints `PROTOCOL ADDRESS PORT STATE` for the others, then `asked NUMBER`.

set -u
export LC_ALL=C

knock() { : <>"/dev/tcp/$1/$2" && printf open >&2; }

# gather: what the batch's connections came to; those that still wait end now.
gather() {
  local late number said state
  read -rt "$PATIENCE" -u "$NEVER"
  mapfile -t late < <(jobs -rp)
  kill "${late[@]}"
  wait
  for number in "${!batch[@]}"; do
    IFS= read -rd '' said <"$WORK/$number"
    case $said in
      *open | *' bytes from '*) state=open ;;
      *refused*) state=refused ;;
      *'not found'* | *ermitted*) state=unasked ;;
      *unreachable* | *'No route'* | *rohibited*) state=unreachable ;;
      *) state=silent ;;
    esac
    printf '%s %s\n' "${batch[number]}" "$state" || exit 1
  done
  batch=()
}

main() {
  local PAUSE=$1 PATIENCE=$2 most=$3 token=$4 NEVER WORK lines line
  local -a batch=()
  WORK=$(mktemp -d) || exit 1
  # shellcheck disable=SC2064
  trap "rm -rf -- '$WORK'" EXIT
  trap 'exit 1' HUP INT TERM PIPE
  # Nobody ever writes into it: reading from it is a sleep without a process.
  exec {NEVER}<> <(:)
  # What the shell tells of connections that were ended.
  exec 2>/dev/null
  mapfile -t lines
  for line in "${lines[@]}"; do
    # shellcheck disable=SC2086
    set -- $line
    case $1 in
      udp) printf %s "$token" >"/dev/udp/$2/$3" ;;
      tcp) knock "$2" "$3" 2>"$WORK/${#batch[@]}" & batch+=("$line") ;;
      icmp) ping -n -c 1 -W 5 "$2" >"$WORK/${#batch[@]}" 2>&1 & batch+=("$line") ;;
    esac
    read -rt "$PAUSE" -u "$NEVER"
    ((${#batch[@]} < most)) || gather
  done
  ((${#batch[@]} == 0)) || gather
  printf 'asked %s\n' "${#lines[@]}"
}

# One line: what stands behind it on standard input is not for the shell.
main "$@"; exit
