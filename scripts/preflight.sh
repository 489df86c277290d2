# shellcheck shell=bash
# First contact: looks for everything that would fail later, changes nothing, reports all problems at once.
# Standard output is one JSON line of facts.

PROBLEMS=()
WARNINGS=()
SKEW=null

problem() { PROBLEMS+=("$1"); }

main() {
  payload_read
  require_text name role identity address cpu memory_mb disk_gb size_check max_skew_seconds
  require ports time_servers urls
  optional os_family_check true
  optional passing_addresses
  optional sessions 0
  optional families
  optional search_below
  optional disk_path /var/lib
  optional exec_paths
  optional source online
  optional rename false
  optional ca_bundle
  optional proxy_http
  optional proxy_https
  optional proxy_no
  one_of size_check warning error
  one_of os_family_check true false
  one_of source online airgap
  one_of rename true false
  number cpu
  number memory_mb
  number disk_gb
  number max_skew_seconds
  number sessions

  check_system
  check_family
  check_owner
  check_address
  check_name
  check_size
  check_processes
  check_mounts
  check_node
  check_ports
  check_other_firewall
  check_search_domains
  check_urls
  check_clock
  report
}

check_system() {
  local id version
  ((EUID == 0)) || problem "the SSH user does not become root: let it use sudo without a password"
  [[ -d /run/systemd/system ]] || problem "systemd does not run this host: services cannot be managed"
  [[ $(uname -m) == x86_64 ]] || problem "the architecture is $(uname -m); the installation media are for x86_64"
  [[ -s /etc/machine-id ]] || problem "/etc/machine-id is empty: run systemd-machine-id-setup"
  id=$(os_value ID)
  version=$(os_value VERSION_ID)
  if ! os_supported "$id" "$version"; then
    if [[ ${V[os_family_check]} == true ]]; then
      problem "the operating system is $id $version; supported are Debian 12/13, Ubuntu 22.04/24.04 and the RHEL 9 family"
    else
      WARNINGS+=("the operating system is $id $version, which is not among the supported ones")
    fi
  fi
  local tool
  for tool in curl openssl ss ip flock findmnt; do
    command -v "$tool" >/dev/null || problem "the command '$tool' is missing: install its package"
  done
}

# What is installed from files of one family of systems.
check_family() {
  local family
  list families
  ((${#LIST[@]})) || return 0
  family=$(os_family)
  [[ " ${LIST[*]} " == *" $family "* ]] || problem "the operating system is of the $family family, and the installation media hold ${V[role]} for ${LIST[*]} only; put the package for $family on the media server and its sum into opstella:media.sha256, or use another system"
}

os_supported() {
  case "$1 $2" in
    'debian 12' | 'debian 13' | 'ubuntu 22.04' | 'ubuntu 24.04') ;;
    'rhel 9'* | 'rocky 9'* | 'almalinux 9'* | 'centos 9'* | 'ol 9'*) ;;
    *) return 1 ;;
  esac
}

check_owner() {
  local found
  found=$(identity_problem "${V[identity]}")
  [[ -z $found ]] || problem "$found"
}

check_address() {
  [[ " $(addresses) " == *" ${V[address]} "* ]] || problem "the address ${V[address]} is on none of its interfaces (it has: $(addresses)); correct the address in the settings or on the host"
}

addresses() {
  ip -o addr show scope global 2>/dev/null | awk '{ sub("/.*", "", $4); printf "%s%s", separator, $4; separator = " " }'
}

# The kernel and the file system keep some of what the hypervisor gave: 7 % is let pass.
check_size() {
  local memory disk short=()
  memory=$(memory_mb)
  disk=$(disk_gb)
  (($(nproc) >= V[cpu])) || short+=("CPUs: planned ${V[cpu]}, found $(nproc)")
  ((memory * 100 >= V[memory_mb] * 93)) || short+=("memory: planned ${V[memory_mb]} MB, found $memory MB")
  ((disk * 100 >= V[disk_gb] * 93)) || short+=("disk at ${V[disk_path]}: planned ${V[disk_gb]} GB, found $disk GB")
  local item
  for item in ${short[@]+"${short[@]}"}; do
    if [[ ${V[size_check]} == error ]]; then
      problem "too small: $item; enlarge the machine or its disk, or set opstella:machines.sizeCheck to warning"
    else
      WARNINGS+=("smaller than planned: $item")
    fi
  done
}

memory_mb() { awk '$1 == "MemTotal:" { printf "%d", $2 / 1024 }' /proc/meminfo; }
disk_gb() { df -B1G --output=size "$(existing "${V[disk_path]}")" | awk 'NR == 2 { print $1 }'; }

# existing PATH: the nearest folder above PATH, or PATH itself, that is there already.
existing() {
  local path=$1
  while [[ ! -e $path ]]; do
    path=${path%/*}
    path=${path:-/}
  done
  readlink -f "$path"
}

# mounted PATH FIELD: of the file system that PATH will lie on: TARGET, FSTYPE or OPTIONS.
mounted() { findmnt -n -o "$2" -T "$(existing "$1")" | tail -n 1; }

mount_option() { [[ ,$(mounted "$1" OPTIONS), == *",$2,"* ]]; }

# What is read-only, not executable or in memory fails in the middle of an installation, or at the next restart.
check_mounts() {
  local path told=' ' mount
  for path in /etc /usr /var/lib "${V[disk_path]}"; do
    mount=$(mounted "$path" TARGET)
    if [[ $told == *" $mount "* ]] || ! mount_option "$path" ro; then continue; fi
    told+="$mount "
    problem "$path lies on $mount, which is mounted read-only, and is written to; mount it read-write for good (/etc/fstab; an image-based system cannot be used)"
  done
  told=' '
  list exec_paths
  [[ $(os_family) != debian ]] || LIST+=(/var/lib/dpkg)
  for path in ${LIST[@]+"${LIST[@]}"}; do
    mount=$(mounted "$path" TARGET)
    if [[ $told == *" $mount "* ]] || ! mount_option "$path" noexec; then continue; fi
    told+="$mount "
    problem "$path lies on $mount, which is mounted noexec, and programs run from there; remove noexec from its line in /etc/fstab and: mount -o remount,exec $mount"
  done
  case $(mounted "${V[disk_path]}" FSTYPE) in
    tmpfs | ramfs) problem "${V[disk_path]} lies on $(mounted "${V[disk_path]}" TARGET), which is in memory: its data would be lost at the next restart; mount a disk there" ;;
    overlay) [[ ${V[role]} != nfs ]] || problem "${V[disk_path]} lies on an overlay file system, which gives no lasting file handles and cannot be exported; mount a disk there (ext4, xfs)" ;;
  esac
}

# What RKE2 asks of a node's system beside its size (docs.rke2.io, Known Issues and Security).
check_node() {
  [[ ${V[role]} == master || ${V[role]} == worker ]] || return 0
  if systemctl is-enabled --quiet nm-cloud-setup.timer 2>/dev/null || systemctl is-enabled --quiet nm-cloud-setup.service 2>/dev/null; then
    problem "nm-cloud-setup is enabled: its routing rules break those of the network plugin; systemctl disable --now nm-cloud-setup.timer nm-cloud-setup.service, then reboot this host"
  elif ip -4 rule show 2>/dev/null | grep -Eq 'lookup 30[24][0-9]{2}( |$)'; then
    problem "routing rules that nm-cloud-setup made are in force and break those of the network plugin (ip rule); reboot this host"
  fi
  selinux_enforcing || return 0
  if [[ $(os_family) != rhel ]]; then
    problem "SELinux is enforced, and RKE2 has a policy for the RHEL family only; write SELINUX=permissive into /etc/selinux/config and: setenforce 0"
  elif package_installed rke2-selinux; then
    return
  elif [[ ${V[source]} == online ]]; then
    # Where its policy comes from.
    V[urls]+=$'\n'$SELINUX_PACKAGES/public.key
  elif [[ -z $(command dnf -q repoquery rke2-selinux 2>/dev/null) ]]; then
    problem "SELinux is enforced, and the package rke2-selinux is neither installed nor offered by this host's repositories; put it and container-selinux into them, or install both, before RKE2"
  fi
}

# A name that somebody else gave (DHCP, a directory service) is not changed without a word.
check_name() {
  local name
  name=$(</proc/sys/kernel/hostname)
  [[ ${V[rename]} == true && ! -e $STATE/identity && ${name%%.*} != "${V[name]}" ]] || return 0
  WARNINGS+=("its name will be changed from $name to ${V[name]}; opstella:machines.rename: false keeps it")
}

# Each session has two processes of sshd, and the operator's run closes none before it ends.
check_processes() {
  local slice=user-${SUDO_UID:-$UID}.slice limit
  ((V[sessions] > 0)) || return 0
  limit=$(systemctl show --property=TasksMax --value "$slice" 2>/dev/null) || return 0
  [[ $limit =~ ^[0-9]+$ ]] || return 0
  ((limit >= 2 * V[sessions])) ||
    problem "systemd lets $limit processes run in $slice (TasksMax), and a first deployment needs $((2 * V[sessions])) for its ${V[sessions]} SSH sessions through this host: systemctl set-property $slice TasksMax=$((3 * V[sessions]))"
}

# On a host that is already ours its own services hold the ports.
check_ports() {
  local port protocol holder
  [[ ! -e $STATE/identity ]] || return 0
  list ports
  for port in ${LIST[@]+"${LIST[@]}"}; do
    protocol=${port%/*}
    port=${port#*/}
    [[ $protocol =~ ^(tcp|udp)$ && $port =~ ^[0-9]+$ ]] || die "the value 'ports' has the line '$protocol/$port'" "write lines like tcp/6443" 2
    holder=$(ss -H -l -n -p "--$protocol" "sport = :$port" 2>/dev/null | head -n 1)
    [[ -z $holder ]] || problem "port $port/$protocol is taken$(holder_name "$holder"); stop what holds it"
  done
}

holder_name() {
  local pattern='users:\(\("([^"]+)",pid=([0-9]+)'
  [[ ! $1 =~ $pattern ]] || printf ' by %s (process %s)' "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
}

# A packet must be accepted by every firewall; another one would drop flows that the plan allows. Units that are active count
# also while their tables are empty: they fill them again.
check_other_firewall() {
  local unit line known=' '
  while IFS= read -r line; do
    problem "$(foreign_filter_problem "$line")"
    known+="${line##*|} "
  done < <(foreign_filters "${V[role]}")
  for unit in firewalld ufw; do
    systemctl is-active --quiet "$unit" 2>/dev/null || continue
    [[ $unit != ufw ]] || ufw status 2>/dev/null | grep -q '^Status: active' || continue
    [[ $known != *" $unit "* ]] || continue
    problem "$unit is active and would drop flows of the plan, which brings rules of its own: systemctl disable --now $unit"
  done
}

# Pods ask for a short name below each search domain of the machine first: a wildcard record there answers for every Service and
# for every host outside. `search_below` is the platform's domain, empty where pods get a file without search domains.
check_search_domains() {
  local domain name answer remedy
  [[ -n ${V[search_below]} ]] || return 0
  remedy="set opstella:dns.servers, from which pods get name servers without a search domain, or take the domain out of this host's search list"
  for domain in $(search_domains); do
    name=opstella-$RANDOM$RANDOM.$domain
    answer=$(timeout 10 getent hosts "$name." | awk 'NR == 1 { print $1 }') || true
    if [[ -n $answer ]]; then
      problem "the name servers answer for any name below the search domain $domain ($name is $answer): pods, which look there first, would take that for every Service and every host outside; $remedy"
    elif [[ $domain == "${V[search_below]}" || $domain == *".${V[search_below]}" ]]; then
      WARNINGS+=("the search domain $domain belongs to the platform's: with a wildcard record *.${V[search_below]} pods would reach the load balancer instead of every Service; $remedy")
    fi
  done
}

# search_domains: those that the kubelet would hand on to pods; systemd-resolved keeps its own file.
search_domains() {
  cat /etc/resolv.conf /run/systemd/resolve/resolv.conf 2>/dev/null | tr 'A-Z\t' 'a-z ' |
    awk '$1 == "search" || $1 == "domain" { for (i = 2; i <= NF; i++) { sub(/[.]$/, "", $i); if ($i != "" && !seen[$i]++) print $i } }' || true
}

check_urls() {
  local url message
  list urls
  ((${#LIST[@]})) || return 0
  stage
  curl_options
  for url in "${LIST[@]}"; do
    proxy_use "$url"
    if ! curl "${CURL[@]}" ${DIRECT[@]+"${DIRECT[@]}"} --range 0-0 --output /dev/null -- "$url" 2>"$STAGE/curl"; then
      message=$(said "$STAGE/curl" '^curl: \(')
      problem "cannot reach $url: $message; $(curl_remedy "$message")"
    fi
  done
}

curl_options() {
  CURL=(--fail --silent --show-error --location --connect-timeout 10 --max-time 30)
  [[ -n ${V[ca_bundle]} ]] || return 0
  local system
  for system in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /dev/null; do
    [[ ! -r $system ]] || break
  done
  { cat "$system"; printf '%s\n' "${V[ca_bundle]}"; } >"$STAGE/ca"
  CURL+=(--cacert "$STAGE/ca")
}

# ---- clock ------------------------------------------------------------------------------------

check_clock() {
  local server tried=() offset=
  list time_servers
  for server in ${LIST[@]+"${LIST[@]}"}; do
    if offset=$(sntp_offset "$server"); then break; fi
    offset=
    tried+=("$server")
  done
  ((${#tried[@]} == 0)) || WARNINGS+=("no usable time from: ${tried[*]} (SNTP, UDP port 123)")
  [[ -n $offset ]] || offset=$(http_offset) || return 0
  SKEW=$(seconds "$offset")
  local size=${offset#-}
  ((size <= V[max_skew_seconds] * 1000)) || problem "the clock is off by $SKEW s (at most ${V[max_skew_seconds]} s allowed): certificates and tokens would be refused; set it, e.g. timedatectl set-time"
}

now_ms() { local t=${EPOCHREALTIME/[.,]/}; printf '%s' "${t%???}"; }

seconds() {
  local ms=$1 sign=
  [[ $ms != -* ]] || sign=-
  ms=${ms#-}
  printf '%s%d.%03d' "$sign" "$((ms / 1000))" "$((ms % 1000))"
}

# sntp_offset HOST [PORT]: local clock minus server clock, in ms (RFC 4330: 48 bytes, transmit time at
# byte 40, seconds since 1900). False when nobody answers, or the server itself is not synchronised.
sntp_offset() {
  local fd before after bytes server
  { exec {fd}<>"/dev/udp/$1/${2:-123}"; } 2>/dev/null || return 1
  before=$(now_ms)
  { printf '\x23'; head -c 47 /dev/zero; } | dd bs=48 iflag=fullblock status=none 2>/dev/null 1>&"$fd" || return 1
  read -ra bytes < <(timeout 3 dd bs=48 count=1 status=none <&"$fd" 2>/dev/null | od -An -v -w48 -tu1) || true
  after=$(now_ms)
  exec {fd}>&-
  ((${#bytes[@]} == 48)) || return 1
  ((bytes[0] >> 6 != 3 && (bytes[0] & 7) == 4 && bytes[1] >= 1 && bytes[1] <= 15)) || return 1
  server=$((((bytes[40] << 24) + (bytes[41] << 16) + (bytes[42] << 8) + bytes[43] - 2208988800) * 1000 + ((bytes[44] << 8) + bytes[45]) * 1000 / 65536))
  printf '%d' "$(((before + after) / 2 - server))"
}

# http_offset: the same by the Date header of the first URL that has one, good to a second.
http_offset() {
  local url date
  list urls
  for url in ${LIST[@]+"${LIST[@]}"}; do
    [[ $url == http* ]] || continue
    curl_options
    proxy_use "$url"
    date=$(curl "${CURL[@]}" ${DIRECT[@]+"${DIRECT[@]}"} --head -- "$url" 2>/dev/null | tr -d '\r' | awk 'tolower($1) == "date:" { sub("^[^ ]* ", ""); print }' | tail -n 1) || continue
    [[ -n $date ]] || continue
    date=$(date -d "$date" +%s 2>/dev/null) || continue
    printf '%d' "$(($(now_ms) - date * 1000 - 500))"
    return
  done
  WARNINGS+=("the clock could not be compared with anything")
  return 1
}

# ---- report -----------------------------------------------------------------------------------

report() {
  local item found=() other
  for item in ${WARNINGS[@]+"${WARNINGS[@]}"}; do warning "host ${V[name]}: $item"; done
  if ((${#PROBLEMS[@]})); then
    say "host ${V[name]} (${V[role]}, ${V[address]}) cannot be used yet, ${#PROBLEMS[@]} problem(s):"
    for item in "${PROBLEMS[@]}"; do say "  - $item"; done
    exit 1
  fi
  found=("${V[address]}")
  list passing_addresses
  for other in $(addresses); do
    [[ $other == "${V[address]}" || " ${LIST[*]-} " == *" $other "* ]] || found+=("$other")
  done
  local facts
  printf -v facts '{"name":%s,"hostname":%s,"machine_id":%s,"addresses":%s,"os":%s,"os_version":%s,"cpu":%d,"memory_mb":%d,"disk_gb":%d,"clock_skew_seconds":%s,"warnings":%s}' \
    "$(json_string "${V[name]}")" "$(json_string "$(</proc/sys/kernel/hostname)")" "$(json_string "$(</etc/machine-id)")" "$(json_list "${found[@]}")" \
    "$(json_string "$(os_value ID)")" "$(json_string "$(os_value VERSION_ID)")" "$(nproc)" "$(memory_mb)" "$(disk_gb)" "$SKEW" \
    "$(json_list ${WARNINGS[@]+"${WARNINGS[@]}"})"
  reply "$facts"
}
