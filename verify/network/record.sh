# shellcheck shell=bash
# Records for a while what arrives at this host, in a table of the packet filter that judges nothing. Root.
#
#   bash -s -- SECONDS
#
# Standard input, behind this text: the table for nft, a NUL, then nothing: the table goes when standard input ends, after
# SECONDS, or by a signal. Prints what listens, the host's own ruleset, and `recording` once it does.

set -u
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

die() {
  printf '%s\n' "$1" >&2
  exit 1
}

main() {
  local table
  command -v nft >/dev/null || die "there is no nft on this host"
  IFS= read -rt 30 -d '' table || die "the table did not come"
  # The lock is on the host's network itself: it leaves no file, and goes with this process, however that ends.
  exec {lock}</proc/self/ns/net
  flock -n "$lock" || die "another run records on this host: wait for its end"
  trap 'nft delete table inet opstella_record 2>/dev/null' EXIT
  trap 'exit 1' HUP INT TERM PIPE
  # One that is there is of a run that was killed.
  nft -f - <<<$'add table inet opstella_record\ndelete table inet opstella_record\n'"$table" || exit 1
  ss -Hltun
  printf 'ruleset\n'
  nft -nn list table inet opstella 2>/dev/null
  printf 'recording\n'
  read -rt "$1" _
}

# One line: what stands behind it on standard input is not for the shell.
main "$@"; exit
