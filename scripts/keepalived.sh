# shellcheck shell=bash
# keepalived with the given configuration: checked before it is installed, reloaded (not restarted) when it changed,
# so that virtual addresses stay where they are. As `keepalived-remove`: takes it off the host, and them with it.

UNIT=keepalived
CONFIG=/etc/keepalived/keepalived.conf
DROP_IN=/etc/systemd/system/keepalived.service.d/opstella.conf
REMEDY="read the lines above; keepalived names the line of $CONFIG that it cannot use"

main() {
  payload_read
  require_text config address virtual_addresses
  require peers
  optional timeout_seconds 60
  number timeout_seconds
  local address virtual
  list virtual_addresses
  virtual=("${LIST[@]}")
  list peers
  for address in "${V[address]}" "${virtual[@]}" ${LIST[@]+"${LIST[@]}"}; do
    [[ $address =~ ^[0-9]{1,3}(\.[0-9]{1,3}){3}$ ]] || die "'$address' is not an IPv4 address" "write it as 192.168.72.10" 2
  done
  must_be_root
  one_at_a_time
  if [[ $PHASE == keepalived-remove ]]; then
    remove_keepalived
    return
  fi
  stage
  package_install keepalived
  selinux_allow keepalived_connect_any "keepalived ask HAProxy"
  local interface
  interface=$(interface_of "${V[address]}")
  [[ -n $interface ]] || die "the address ${V[address]} is on no interface of this host" "correct the address in the settings or on the host"
  printf '%s' "${V[config]//@INTERFACE@/$interface}" >"$STAGE/keepalived.conf"
  check_configuration "$(<"$STAGE/keepalived.conf")"$'\n'
  for address in "${virtual[@]}"; do
    kept "$address" || refuse_a_taken_address "$address"
  done
  install_staged "$STAGE/keepalived.conf" "$CONFIG" 0644
  # Without keepalived nobody takes the address off this host again, while the other one holds it too.
  install_text "$DROP_IN" 0644 $'[Service]\nRestart=always\nRestartSec=1\n'
  [[ $DID == unchanged ]] || systemctl daemon-reload
  service_enable "$UNIT"
  put_to_use "$(<"$CONFIG")"
  for address in "${virtual[@]}"; do
    wait_until "${V[timeout_seconds]}" "the virtual address $address to answer" answers "$address" || {
      journal_tail "$UNIT" 15
      die "nothing answers at the virtual address $address, port 80, after ${V[timeout_seconds]} s" "see whether HAProxy runs on the load balancers (systemctl status haproxy), and whether the network lets a machine take a further address"
    }
    unchanged "the virtual address $address answers, $(holder "$address")"
  done
}

interface_of() { ip -4 -o addr show to "$1/32" scope global | awk 'NR == 1 { print $2 }'; }

# Status 5 is about scripts that root might run unsafely; the configuration names none that others can write.
check_configuration() {
  check_beside "$CONFIG" "$1" keepalived --config-test --use-file >"$STAGE/keepalived.log" 2>&1 ||
    die "keepalived refuses its configuration, the running one was left alone: $(said "$STAGE/keepalived.log" 'unknown|invalid|error|line [0-9]+')" "correct what it names"
}

# kept ADDRESS: the keepalived that runs is one of those that hold it in turn already.
kept() { systemctl is-active --quiet "$UNIT" && grep -qsF " $1/32 " "$CONFIG"; }

# Two machines that answer for one address would get half of the connections each. The other load balancer may hold it.
refuse_a_taken_address() {
  local address=$1 holder peer
  holds "$address" && return
  # What this host remembers of it may be a machine that held it before.
  ip -4 neigh flush to "$address"
  answers "$address" || true
  holder=$(hardware_address "$address")
  [[ -n $holder ]] || return 0
  list peers
  for peer in ${LIST[@]+"${LIST[@]}"}; do
    answers "$peer" || true
    [[ $(hardware_address "$peer") != "$holder" ]] || return 0
  done
  die "the virtual address $address is taken by another machine ($holder)" "give it an address that no machine has, in loadBalancer.virtualAddress"
}

hardware_address() { ip -4 neigh show to "$1" | awk '{ for (i = 1; i < NF; i++) if ($i == "lladdr") { print $(i + 1); exit } }'; }

holds() { [[ -n $(interface_of "$1") ]]; }

holder() { if holds "$1"; then printf 'held by this host'; else printf 'held by the other one'; fi; }

# HAProxy listens there on every address of its host.
answers() { timeout 2 bash -c "exec 3<>/dev/tcp/$1/80" 2>/dev/null; }

put_to_use() {
  local text=$1
  if in_use "$UNIT" "$text" || ! systemctl is-active --quiet "$UNIT"; then
    service_running "$UNIT" 30 "$REMEDY"
    now_in_use "$UNIT" "$text"
    return
  fi
  before_service "$UNIT" reload
  not_in_use "$UNIT"
  if systemctl reload "$UNIT" && sleep 1 && systemctl is-active --quiet "$UNIT"; then
    changed "$UNIT reloaded"
  else
    journal_tail "$UNIT" 15
    die "keepalived did not take its new configuration; the previous one is put back" "$REMEDY"
  fi
  now_in_use "$UNIT" "$text"
}

remove_keepalived() {
  if [[ ! -e $CONFIG && ! -e $DROP_IN ]]; then
    unchanged "keepalived is not configured"
    return
  fi
  before_service "$UNIT"
  systemctl disable --now "$UNIT" 2>/dev/null || true
  remove_file "$CONFIG"
  remove_file "$DROP_IN"
  systemctl daemon-reload
  not_in_use "$UNIT"
  changed "keepalived stopped; this host holds no virtual address"
}
