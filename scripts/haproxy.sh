# shellcheck shell=bash
# HAProxy with the given configuration: checked before it is installed, reloaded (not restarted) when it
# changed, so that connections through the old process live on.

REMEDY="read the lines above; often another program holds one of the ports: ss -lntp"

main() {
  local path=/etc/haproxy/haproxy.cfg
  payload_read
  require_text config
  must_be_root
  one_at_a_time
  stage
  package_install haproxy
  selinux_allow haproxy_connect_any "HAProxy connect"
  # Debian's unit makes the folder of the administration socket; the RHEL family's does not.
  if [[ $(os_family) == rhel ]]; then
    install_text /etc/tmpfiles.d/opstella-haproxy.conf 0644 $'d /run/haproxy 0755 root root -\n'
    systemd-tmpfiles --create /etc/tmpfiles.d/opstella-haproxy.conf
  fi

  printf '%s' "${V[config]}" >"$STAGE/haproxy.cfg"
  check_beside "$path" "${V[config]}" haproxy -c -f >"$STAGE/haproxy.log" 2>&1 || die "HAProxy refuses its configuration, the running one was left alone: $(grep -m 1 -F ALERT "$STAGE/haproxy.log" || tail -n 1 "$STAGE/haproxy.log")" "correct what it names"
  install_staged "$STAGE/haproxy.cfg" "$path" 0644
  service_enable haproxy
  if ! in_use haproxy "${V[config]}" && systemctl is-active --quiet haproxy; then
    reload
  else
    service_running haproxy 30 "$REMEDY"
  fi
  now_in_use haproxy "${V[config]}"
}

# The unit's reload checks the file once more and tells the master process to start a new worker, which gets
# the listening sockets from the old one. systemd calls that a success even when no new worker comes up.
reload() {
  before_service haproxy reload
  not_in_use haproxy
  WORKERS=$(workers)
  if systemctl reload haproxy 2>/dev/null && wait_until 10 "a new HAProxy worker" new_worker; then
    changed "haproxy reloaded"
    return
  fi
  journal_tail haproxy 12
  die "HAProxy did not take its new configuration; the previous one is put back and serves on" "$REMEDY"
}

# workers: the process numbers of the master's children.
workers() {
  awk -v master="$(systemctl show -P MainPID haproxy)" '$1 == "Pid:" { pid = $2 } $1 == "PPid:" && $2 == master { print pid }' /proc/[0-9]*/status 2>/dev/null || true
}

new_worker() {
  local pid
  for pid in $(workers); do
    [[ $'\n'$WORKERS$'\n' == *$'\n'$pid$'\n'* ]] || return 0
  done
  return 1
}
