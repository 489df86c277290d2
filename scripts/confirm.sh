# shellcheck shell=bash
# Comes over a new connection after `prepare`: that it came at all proves that the new rules let the
# operator in; where they were rolled back before it came, its own packets prove it. Stops the roll-back and makes the rules last.

main() {
  local confirmed=$STATE/firewall.nft candidate=$STATE/firewall-candidate.nft wanted
  payload_read
  require_text ruleset_sha256
  wanted=${V[ruleset_sha256],,}
  must_be_root
  one_at_a_time
  firewall_lock

  # First what may fail: a confirmation that is put back would have to be tried again.
  install_unit
  if [[ -f $candidate && $(sha256_of "$candidate") == "$wanted" ]]; then
    [[ -e /run/opstella/firewall/pending ]] || try_again "$candidate"
    before_change "$candidate"
    undo_by firewall_again
    install_staged "$candidate" "$confirmed" 0600
    firewall_listing >/run/opstella/firewall/listing
    rm -f /run/opstella/firewall/pending "$candidate"
    systemctl stop opstella-firewall-rollback.timer 2>/dev/null || true
    changed "firewall confirmed"
  elif [[ -f $confirmed && $(sha256_of "$confirmed") == "$wanted" ]]; then
    unchanged "firewall confirmed"
  else
    die "the ruleset to confirm, SHA-256 $wanted, was never put in force on this host" "run the preparation of this host again, then confirm"
  fi
  service_running opstella-firewall.service 30 "read the lines above; nft -c -f /etc/opstella/firewall.nft shows what is wrong"
}

# firewall_again: the rules that were confirmed before are in force again, or none. After a restart nothing of ours is in /run.
firewall_again() {
  firewall_unlock
  folder /run/opstella/firewall 0700
  firewall_rollback_program >/run/opstella/firewall/rollback.sh
  : >/run/opstella/firewall/pending
  rm -f /run/opstella/firewall/listing
  bash /run/opstella/firewall/rollback.sh
  systemctl stop opstella-firewall-rollback.timer 2>/dev/null || true
}

# After a run that died between the two, the engine does not run the preparation again: its values are the same. So the candidate is
# put in force here once more, and this connection, which came while it was not, is tried on its rules.
try_again() {
  local connection
  connection=$(ssh_connection)
  # Without one, the rules stay in force for the next run.
  [[ -z $connection ]] || undo_by firewall_again
  firewall_try "$1" 180
  [[ -n $connection ]] || die "the firewall had already been rolled back, or the host restarted: no confirmation came in time" \
    "the rules are in force again: run again within 3 minutes, over a new connection" 75
  firewall_admits "$connection" || die "the new rules would lock you out of this host: they do not let in this connection, which comes from ${connection%% *}; those that were confirmed before are in force again" \
    "$LET_OPERATOR_IN"
}

install_unit() {
  local nft text
  nft=$(command -v nft)
  text="[Unit]
Description=opstella: host firewall
Documentation=file:///etc/opstella/firewall.nft
DefaultDependencies=no
After=local-fs.target systemd-modules-load.service nftables.service
Before=network-pre.target shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c '{ echo add table inet opstella; echo delete table inet opstella; cat /etc/opstella/firewall.nft; } | $nft -f -'
ExecStop=-$nft delete table inet opstella
[Install]
WantedBy=multi-user.target
"
  install_text /etc/systemd/system/opstella-firewall.service 0644 "$text"
  [[ $DID == unchanged ]] || systemctl daemon-reload
  service_enable opstella-firewall.service
}
