# shellcheck shell=bash
# Makes a fresh host ready for its role: owner mark, name, names of the others, proxy, packages, trust,
# time, kernel, swap, firewall. The firewall comes last and undoes itself unless `confirm` follows.

main() {
  payload_read
  require_text hostname identity
  require hosts_file dns_servers chrony_conf modules sysctl ca_bundle proxy_http proxy_https proxy_no packages_debian packages_rhel ruleset
  optional rollback_seconds 300
  optional cis false
  optional ssh_from ''
  optional rename true
  optional persistent_journal false
  optional pods_resolv_conf ''
  one_of cis true false
  one_of rename true false
  one_of persistent_journal true false
  number rollback_seconds
  must_be_root
  one_at_a_time
  identity_check "${V[identity]}"

  install_text /etc/opstella/identity 0644 "${V[identity]}"$'\n'
  set_hostname
  install_block /etc/hosts "${V[hosts_file]}"
  tell_cloud_init
  set_name_servers
  # Before RKE2 is told of it; it stays when the settings no longer name it, for pods are made until RKE2 is told that, too.
  [[ -z ${V[pods_resolv_conf]} ]] || install_text /etc/opstella/pods-resolv.conf 0644 "${V[pods_resolv_conf]}"
  set_proxy
  # Package sources and proxies may have certificates of these authorities: before packages, where the tools are here.
  ! trust_tools || trust_store_install "${V[ca_bundle]}"
  install_packages
  if ! trust_tools; then
    [[ -z ${V[ca_bundle]} ]] || package_install ca-certificates openssl
    trust_store_install "${V[ca_bundle]}"
  fi
  set_time
  turn_swap_off
  load_modules
  set_sysctls
  [[ ${V[persistent_journal]} == false ]] || keep_journal
  [[ ${V[cis]} == false ]] || add_etcd_user
  if [[ -n ${V[ruleset]} ]]; then apply_firewall; else remove_firewall; fi
}

trust_tools() { type -P openssl >/dev/null && { type -P update-ca-certificates || type -P update-ca-trust; } >/dev/null; }

# A full name whose first label is the planned one stays: a directory service may know the host by it.
set_hostname() {
  local name
  name=$(</proc/sys/kernel/hostname)
  if [[ ${V[rename]} == false ]]; then
    unchanged "hostname $name (kept)"
    return
  fi
  if [[ ${name%%.*} == "${V[hostname]}" && -f /etc/hostname && $(</etc/hostname) == "$name" ]]; then
    unchanged "hostname $name"
  else
    before_change /etc/hostname
    # Of a run that goes on where one was killed, the name is that one's.
    grep -qs '^hostname_back ' "$JOURNAL/steps" || undo_by hostname_back "$(</proc/sys/kernel/hostname)"
    hostnamectl set-hostname "${V[hostname]}"
    changed "hostname ${V[hostname]}"
  fi
}

# cloud-init would put its own name and hosts file back at the next boot. A machine's user data win over files here, so
# one with `manage_etc_hosts: true` writes /etc/hosts from a template at every boot: the names stand in that, too.
tell_cloud_init() {
  local template text=
  [[ -d /etc/cloud/cloud.cfg.d ]] || return 0
  [[ ${V[rename]} == false ]] || text=$'preserve_hostname: true\n'
  install_text /etc/cloud/cloud.cfg.d/99-opstella.cfg 0644 "${text}manage_etc_hosts: false"$'\n'
  for template in /etc/cloud/templates/hosts.*.tmpl; do
    [[ ! -f $template ]] || install_block "$template" "${V[hosts_file]}"
  done
}

hostname_back() { hostname "$1"; }

# Whoever owns resolv.conf on this host is told; a file that nobody owns is written.
set_name_servers() {
  local text='' server
  list dns_servers
  ((${#LIST[@]})) || return 0
  if systemctl is-active --quiet systemd-resolved; then
    install_text /etc/systemd/resolved.conf.d/opstella.conf 0644 $'[Resolve]\n'"DNS=${LIST[*]}"$'\n'
    in_use dns "${LIST[*]}" || tell_dns restart systemd-resolved
  elif systemctl is-active --quiet NetworkManager && ! network_manager_leaves_dns; then
    server=$(IFS=, && printf '%s' "${LIST[*]}")
    install_text /etc/NetworkManager/conf.d/opstella-dns.conf 0644 $'[global-dns-domain-*]\n'"servers=$server"$'\n'
    in_use dns "${LIST[*]}" || tell_dns reload NetworkManager
  else
    for server in "${LIST[@]}"; do text+="nameserver $server"$'\n'; done
    [[ ! -f /etc/resolv.conf ]] || text+=$(grep -E '^(search|domain|options)[[:space:]]' /etc/resolv.conf || true)
    install_text /etc/resolv.conf 0644 "${text%$'\n'}"$'\n'
    # It writes that file at every lease.
    server=$(printf ', %s' "${LIST[@]}")
    [[ ! -f /etc/dhcp/dhclient.conf ]] || install_block /etc/dhcp/dhclient.conf "supersede domain-name-servers ${server#, };"
  fi
  now_in_use dns "${LIST[*]}"
}

tell_dns() {
  undo_by systemctl "$@"
  not_in_use dns
  systemctl "$@"
}

# cloud-init tells NetworkManager to keep off resolv.conf where it wrote that file itself, as images of the RHEL family do.
network_manager_leaves_dns() { NetworkManager --print-config 2>/dev/null | grep -Eq '^(dns=none|rc-manager=unmanaged)$'; }

# The proxy may carry a password: then the files are for root only. Later phases read /etc/opstella/proxy before they
# fetch anything; the package manager's own file is for whoever uses it beside them.
set_proxy() {
  local text='' host mode=0644
  [[ ${V[proxy_http]}${V[proxy_https]} != *@* ]] || mode=0600
  proxy_use
  if [[ -n ${V[proxy_http]}${V[proxy_https]} ]]; then
    install_text /etc/opstella/proxy "$mode" "http_proxy=${V[proxy_http]}"$'\n'"https_proxy=${V[proxy_https]}"$'\n'"no_proxy=${PROXY[no_proxy]}"$'\n'
  else
    remove_file /etc/opstella/proxy
  fi
  case $(os_family) in
    debian)
      [[ -z ${V[proxy_http]} ]] || text+="Acquire::http::Proxy \"${V[proxy_http]}\";"$'\n'
      [[ -z ${V[proxy_https]} ]] || text+="Acquire::https::Proxy \"${V[proxy_https]}\";"$'\n'
      if [[ -z $text ]]; then
        remove_file /etc/apt/apt.conf.d/95opstella-proxy
        return
      fi
      while IFS= read -r host; do
        text+="Acquire::http::Proxy::$host \"DIRECT\";"$'\n'"Acquire::https::Proxy::$host \"DIRECT\";"$'\n'
      done < <(apt_direct_hosts)
      install_text /etc/apt/apt.conf.d/95opstella-proxy "$mode" "$text" ;;
    rhel)
      if [[ -z ${V[proxy_http]}${V[proxy_https]} ]] && ! grep -qs '# .*opstella$' "$ROOT/etc/dnf/dnf.conf"; then
        unchanged "/etc/dnf/dnf.conf"
      else
        install_text /etc/dnf/dnf.conf "$mode" "$(dnf_conf "${V[proxy_https]:-${V[proxy_http]}}")"$'\n'
      fi ;;
  esac
}

# apt takes whole host names only: those of no_proxy, and those of its own sources that no_proxy means.
apt_direct_hosts() {
  {
    grep -Eo '[^,]+' <<<"${PROXY[no_proxy]}" | grep -E '^[a-z0-9][a-z0-9.-]*$' || true
    proxy_bypassed_in "$ROOT"/etc/apt/sources.list "$ROOT"/etc/apt/sources.list.d/*.list "$ROOT"/etc/apt/sources.list.d/*.sources
  } | sort -u
}

# dnf_conf PROXY: dnf.conf with the proxy at the end of its section [main], where the last of several lines is valid. A
# comment is a whole line there. Lines of an earlier version, with the mark behind the value, go.
dnf_conf() {
  local line text='' section='' inside=false block=''
  [[ -z $1 ]] || block=$'# BEGIN opstella\n'"proxy=$1"$'\n# END opstella\n'
  while IFS= read -r line || [[ -n $line ]]; do
    case $line in
      '# BEGIN opstella') inside=true; continue ;;
      '# END opstella') inside=false; continue ;;
      'proxy='*' # opstella') continue ;;
      '['*)
        if [[ $section == '[main]' ]]; then
          text+=$block
          block=
        fi
        section=$line ;;
    esac
    $inside || text+=$line$'\n'
  done < <(cat "$ROOT/etc/dnf/dnf.conf" 2>/dev/null || true)
  [[ -z $block || $section == '[main]' ]] || text+=$'[main]\n'
  printf '%s' "$text$block"
}

install_packages() {
  case $(os_family) in
    debian) list packages_debian ;;
    rhel) list packages_rhel ;;
  esac
  ((${#LIST[@]} == 0)) || package_install "${LIST[@]}"
}

set_time() {
  local unit=chrony path=/etc/chrony/chrony.conf
  [[ -n ${V[chrony_conf]} ]] || return 0
  [[ $(os_family) == debian ]] || { unit=chronyd; path=/etc/chrony.conf; }
  package_install chrony
  stage
  check_beside "$path" "${V[chrony_conf]}" chronyd -p -f >/dev/null 2>"$STAGE/chrony" || die "chrony refuses its configuration: $(said "$STAGE/chrony" 'error|denied|invalid|could not')" "$(chrony_remedy)"
  install_text "$path" 0644 "${V[chrony_conf]}"
  service_enable "$unit"
  if in_container && ! clock_is_ours; then
    unchanged "clock (belongs to the machine around this container)"
  elif in_use chrony "${V[chrony_conf]}"; then
    service_running "$unit" 30 "read the lines above; check $path"
  else
    before_service "$unit"
    not_in_use chrony
    service_restart "$unit" 30 "read the lines above; check $path"
    now_in_use chrony "${V[chrony_conf]}"
  fi
}

# chrony_remedy: by what chronyd said.
chrony_remedy() {
  if grep -q 'Permission denied' "$STAGE/chrony"; then
    printf 'a security module keeps chronyd from its own folder; look for DENIED in: journalctl -k'
  else
    printf 'correct opstella:time.servers'
  fi
}

# CAP_SYS_TIME is bit 25.
clock_is_ours() {
  local bounding
  bounding=$(awk '$1 == "CapBnd:" { print $2 }' /proc/self/status)
  (((16#$bounding >> 25) & 1))
}

# kubelet refuses to start beside swap.
turn_swap_off() {
  local line text='' found=false devices
  if in_container; then
    unchanged "swap (belongs to the machine around this container)"
    return
  fi
  if [[ -n $(tail -n +2 /proc/swaps) ]]; then
    mapfile -t devices < <(awk 'NR > 1 { print $1 }' /proc/swaps)
    undo_by swap_back "${devices[@]}"
    swapoff -a
    changed "swap off"
  else
    unchanged "swap off"
  fi
  [[ -f /etc/fstab ]] || return 0
  while IFS= read -r line || [[ -n $line ]]; do
    if [[ $line =~ ^[^#[:space:]]+[[:space:]]+[^[:space:]]+[[:space:]]+swap[[:space:]] ]]; then
      line="# swap is off for Kubernetes: $line"
      found=true
    fi
    text+=$line$'\n'
  done </etc/fstab
  ! $found || install_text /etc/fstab 0644 "$text"
}

# swap_back DEVICE...: those that were in use, and no others: fstab may name one that cannot be, and need not name all.
swap_back() {
  local device failed=0
  for device in "$@"; do
    awk -v device="$device" '$1 == device { found = 1 } END { exit !found }' /proc/swaps || swapon "$device" || failed=1
  done
  return "$failed"
}

load_modules() {
  local module missing=()
  list modules
  ((${#LIST[@]})) || return 0
  install_text /etc/modules-load.d/opstella.conf 0644 "$(printf '%s\n' "${LIST[@]}")"$'\n'
  for module in "${LIST[@]}"; do
    [[ -d /sys/module/${module//-/_} ]] || module_built_in "$module" || missing+=("$module")
  done
  if ((${#missing[@]} == 0)); then
    unchanged "kernel modules ${LIST[*]}"
  elif in_container; then
    warning "the kernel of the machine around this container lacks: ${missing[*]}; load them there"
  else
    for module in "${missing[@]}"; do
      modprobe "$module" || die "the kernel module $module cannot be loaded" "install the full kernel package of the distribution (cloud kernels leave modules out) and reboot"
    done
    changed "kernel modules ${missing[*]}"
  fi
}

module_built_in() { grep -qs "/${1//[-_]/[-_]}\.ko" "/lib/modules/$(uname -r)/modules.builtin"; }

set_sysctls() {
  local line key value path set_any=false
  [[ -n ${V[sysctl]} ]] || return 0
  install_text /etc/sysctl.d/90-opstella.conf 0644 "${V[sysctl]}"
  while IFS= read -r line; do
    [[ $line =~ ^[[:space:]]*([a-z0-9_./*-]+)[[:space:]]*=[[:space:]]*(.*[^[:space:]])[[:space:]]*$ ]] || continue
    key=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
    path=/proc/sys/${key//./\/}
    if [[ -r $path && $(tr -s '[:space:]' ' ' <"$path") == "$(tr -s '[:space:]' ' ' <<<"$value")" ]]; then continue; fi
    [[ ! -r $path || ! -w $path ]] || before_value "$path"
    if { printf '%s\n' "$value" >"$path"; } 2>/dev/null; then
      set_any=true
    elif in_container; then
      warning "sysctl $key = $value belongs to the machine around this container; set it there"
    else
      die "the kernel does not take sysctl $key = $value" "load the module it belongs to, or correct the setting"
    fi
  done <<<"${V[sysctl]}"
  if $set_any; then changed "sysctls"; else unchanged "sysctls"; fi
}

# Logs of nodes are collected from /var/log/journal, which the RHEL family's journald does not make.
keep_journal() {
  local text=$'[Journal]\nStorage=persistent\n' machine
  install_text /etc/systemd/journald.conf.d/opstella.conf 0644 "$text"
  machine=$(</etc/machine-id)
  if in_use journal "$text" && [[ -d /var/log/journal/$machine ]]; then
    unchanged "journal on disk"
    return
  fi
  not_in_use journal
  if [[ ! -d /var/log/journal/$machine ]]; then
    undo_by systemctl restart systemd-journald
    systemctl restart systemd-journald
    journalctl --flush
    wait_until 10 "/var/log/journal/$machine" test -d "/var/log/journal/$machine" || die "systemd-journald keeps no journal in /var/log/journal" "look at: journalctl -u systemd-journald; systemd-analyze cat-config systemd/journald.conf"
  fi
  now_in_use journal "$text"
  changed "journal on disk"
}

# RKE2's CIS profile ends at once when this user is missing.
add_etcd_user() {
  if id etcd >/dev/null 2>&1; then
    unchanged "user etcd"
  else
    undo_by etcd_user_back
    useradd --system --comment 'etcd user' --shell /sbin/nologin --no-create-home --user-group etcd
    changed "user etcd"
  fi
}

# The journal names it before there is such a user, and may name it a second time.
etcd_user_back() { ! id etcd >/dev/null 2>&1 || userdel etcd; }

# ---- firewall ---------------------------------------------------------------------------------
# /etc/opstella/firewall.nft             the ruleset that was confirmed last; loaded at boot
# /etc/opstella/firewall-candidate.nft   the one that waits for its confirmation; outlives a roll-back and a reboot
# /run/opstella/firewall/pending         there while the candidate is in force and its roll-back is armed

apply_firewall() {
  local confirmed=$STATE/firewall.nft candidate=$STATE/firewall-candidate.nft foreign
  package_install nftables
  foreign=$(foreign_filters "$([[ ${V[ruleset]} != *'hook forward'* ]] || printf worker)" | head -n 1)
  [[ -z $foreign ]] || die "$(foreign_filter_problem "$foreign")" "then run this again; the firewall stays as it is"
  firewall_lock
  printf '%s' "${V[ruleset]}" >/run/opstella/firewall/ruleset.nft
  firewall_check /run/opstella/firewall/ruleset.nft
  if [[ -f $confirmed ]] && cmp -s /run/opstella/firewall/ruleset.nft "$confirmed"; then
    if [[ ! -e /run/opstella/firewall/pending ]] && firewall_live; then
      unchanged "firewall"
    else
      operator_stays_in
      firewall_confirmed
      changed "firewall: the rules that were confirmed are in force again"
    fi
    # One that was never confirmed, and is not wanted any more.
    remove_file /etc/opstella/firewall-candidate.nft
    return
  fi
  operator_stays_in
  before_change "$candidate"
  undo_by firewall_back
  install -m 0600 /run/opstella/firewall/ruleset.nft "$candidate"
  firewall_try "$candidate" "${V[rollback_seconds]}"
}

# firewall_confirmed: they need no second confirmation, and none would come: for the engine, nothing differs.
firewall_confirmed() {
  firewall_rollback_program >/run/opstella/firewall/rollback.sh
  : >/run/opstella/firewall/pending
  firewall_unlock
  bash /run/opstella/firewall/rollback.sh >/dev/null
  systemctl stop opstella-firewall-rollback.timer 2>/dev/null || true
  firewall_listing >/run/opstella/firewall/listing
}

# firewall_back: what the timer would do later.
firewall_back() {
  firewall_unlock
  [[ ! -e /run/opstella/firewall/pending ]] || bash /run/opstella/firewall/rollback.sh || return 1
  systemctl stop opstella-firewall-rollback.timer 2>/dev/null || true
}

# The roll-back would open the host again; who would be locked out by what is known beforehand need not wait for it.
operator_stays_in() {
  local client network
  client=$(ssh_client)
  list ssh_from
  if [[ -z $client ]] || ((${#LIST[@]} == 0)); then return; fi
  if [[ $client != *:* ]]; then
    for network in "${LIST[@]}"; do
      ! in_network "$client" "$network" || return 0
    done
  fi
  die "the new rules would lock you out of ${V[hostname]}: this connection comes from $client, and they let SSH in from ${LIST[*]} only; the firewall stays as it is" \
    "$LET_OPERATOR_IN"
}

# No ruleset means no firewall of ours: one from before goes, now and at the next boot.
remove_firewall() {
  if [[ ! -e $STATE/firewall.nft && ! -e $STATE/firewall-candidate.nft ]]; then
    unchanged "no firewall"
    return
  fi
  firewall_lock
  before_service opstella-firewall.service
  before_change "$STATE/firewall-candidate.nft" "$STATE/firewall.nft"
  systemctl stop opstella-firewall-rollback.timer 2>/dev/null || true
  systemctl disable --now --quiet opstella-firewall.service 2>/dev/null || true
  nft -f - <<<$'add table inet opstella\ndelete table inet opstella'
  rm -f /run/opstella/firewall/pending /run/opstella/firewall/listing
  remove_file /etc/opstella/firewall-candidate.nft
  remove_file /etc/opstella/firewall.nft
  changed "firewall removed"
}

firewall_check() {
  local tables
  ! grep -Eq '^[[:space:]]*flush[[:space:]]+ruleset' "$1" || die "the ruleset flushes every table, those of Kubernetes and of other tools too" "flush the table inet opstella only"
  tables=$(grep -Eo '^[[:space:]]*(add[[:space:]]+)?table[[:space:]]+[a-z0-9]+[[:space:]]+[A-Za-z0-9_]+' "$1" | awk '{ print $(NF - 1), $NF }' | sort -u)
  [[ $tables == 'inet opstella' ]] || die "the ruleset holds the tables: ${tables//$'\n'/, }" "put everything into the one table inet opstella"
  firewall_text "$1" | nft -c -f - 2>"$STAGE/nft" || die "nft refuses the ruleset: $(head -n 3 "$STAGE/nft" | paste -s -d ' ')" "correct the rules; nothing was changed"
}

# firewall_live: the confirmed ruleset is what the kernel holds, as far as nft's listing tells.
firewall_live() {
  local listing mark=/run/opstella/firewall/listing
  listing=$(firewall_listing 2>/dev/null) || return 1
  [[ -e $mark ]] || systemctl is-active --quiet opstella-firewall || return 1
  [[ -e $mark ]] || printf '%s' "$listing" >"$mark"
  [[ $listing == "$(<"$mark")" ]]
}
