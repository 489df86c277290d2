# shellcheck shell=bash
# Knocks at ports of other hosts and says what came back. For a host that has bash 5 and coreutils only, as any user.
#
#   bash -s -- PAUSE PATIENCE MOST TOKEN
#
# Standard input, behind this text: lines `tcp|udp|icmp ADDRESS PORT`. PAUSE are the microseconds between two packets on
# the average, PATIENCE those that an answer may take, MOST the number that is waited for at once. A datagram holds TOKEN,
# and nobody waits for an answer to it. Prints `PROTOCOL ADDRESS PORT STATE` for the others, then `asked NUMBER`.
#
# No `read -t` as a sleep, though it would save a process: where its time is over before it waits, bash 5.2 restores a
# signal mask that it never saved, and no child can be ended any more.

set -u
export LC_ALL=C
TICK=0.1

now() { NOW=${EPOCHREALTIME/./}; }

knock() { : <>"/dev/tcp/$1/$2" && printf open >&2; }

# look: after a tick ends those whose time is over, before the kernel sends their first packet again.
look() {
  local pid
  sleep "$TICK"
  now
  jobs -rp >"$WORK/running"
  mapfile -t RUNNING <"$WORK/running"
  for pid in "${RUNNING[@]}"; do
    ((NOW - STARTED[pid] < PATIENCE)) || kill "$pid"
  done
}

state() {
  case $1 in
    *open | *' bytes from '*) STATE=open ;;
    *refused*) STATE=refused ;;
    *'not found'* | *ermitted*) STATE=unasked ;;
    *unreachable* | *'No route'* | *rohibited*) STATE=unreachable ;;
    *) STATE=silent ;;
  esac
}

# ask NUMBER: sends the packet of that line.
ask() {
  local protocol address port
  # shellcheck disable=SC2086
  set -- "$1" ${ASKED[$1]}
  protocol=$2 address=$3 port=$4
  now
  case $protocol in
    udp) printf %s "$TOKEN" >"/dev/udp/$address/$port" ;;
    tcp) knock "$address" "$port" 2>"$WORK/$1" & STARTED[$!]=$NOW ;;
    icmp) ping -n -c 1 -W 5 "$address" >"$WORK/$1" 2>&1 & STARTED[$!]=$NOW ;;
  esac
}

main() {
  local pause=$1 most=$3 number=0 credit=0 before room said
  PATIENCE=$2 TOKEN=$4 RUNNING=() STARTED=()
  WORK=$(mktemp -d) || exit 1
  trap 'rm -rf -- "$WORK"' EXIT
  trap 'exit 1' HUP INT TERM PIPE
  # What the shell tells of connections that were ended.
  exec 2>/dev/null
  mapfile -t ASKED
  now
  before=$NOW
  while ((number < ${#ASKED[@]})); do
    look
    # A machine that stood still does not make up for it.
    credit=$((credit + (NOW - before < 200000 ? NOW - before : 200000)))
    before=$NOW
    room=$((most - ${#RUNNING[@]}))
    while ((credit >= pause && room > 0 && number < ${#ASKED[@]})); do
      ask "$number"
      credit=$((credit - pause)) room=$((room - 1)) number=$((number + 1))
    done
    ((credit < pause)) || credit=$pause
  done
  while look; ((${#RUNNING[@]} > 0)); do :; done
  wait
  for number in "${!ASKED[@]}"; do
    [[ ${ASKED[number]} != udp* ]] || continue
    IFS= read -rd '' said <"$WORK/$number"
    state "$said"
    printf '%s %s\n' "${ASKED[number]}" "$STATE" || exit 1
  done
  printf 'asked %s\n' "${#ASKED[@]}"
}

# One line: what stands behind it on standard input is not for the shell.
main "$@"; exit
