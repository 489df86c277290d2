# shellcheck shell=bash
# RKE2 on one host: install what differs, configure, start or restart only when something changed, wait
# until it works. A first installation that dies anywhere continues at the next run, a change is put back. As `rke2-remove`: takes RKE2 off the host.

CONFIG=/etc/rancher/rke2
DATA=/var/lib/rancher/rke2
IMAGES=$DATA/agent/images
MEDIA=/var/lib/opstella/media/rke2
UNMANAGED=$'[keyfile]\nunmanaged-devices=interface-name:flannel*;interface-name:cali*;interface-name:tunl*;interface-name:vxlan.calico;interface-name:vxlan-v6.calico;interface-name:wireguard.cali;interface-name:wg-v6.cali;interface-name:cilium*;interface-name:lxc*\n'
CIS_SHARE=(/usr/local/share/rke2 /opt/rke2/share/rke2 /usr/share/rke2)
RESTART=false
STARTED=0
UPGRADED=false

main() {
  read_values
  UNIT=rke2-${V[type]}
  identity_check "${V[identity]}"
  if [[ $PHASE == rke2-remove ]]; then
    remove_rke2
    return
  fi
  [[ -e $STATE/identity ]] || die "this host was not prepared: $STATE/identity is missing" "run the preparation of this host first"
  other_type_check

  local installed
  installed=$(installed_version)
  # A first installation is not put back: a server that has joined may be what the others' etcd needs.
  [[ -e $STATE/in-use/rke2 || -n $JOURNAL ]] || no_way_back ""
  [[ -z $installed ]] || version_step_check RKE2 "$installed" "${V[version]}"
  install_proxy
  leave_interfaces_to_cni
  use_selinux
  [[ ${V[source]} == online ]] || stage_images
  if [[ $installed == "${V[version]}" && -f $(unit_file) ]]; then
    unchanged "RKE2 $installed"
  else
    if [[ -n $installed ]]; then
      snapshot "$installed"
      keep_release
    fi
    install_rke2
    RESTART=true
    [[ -z $installed ]] || UPGRADED=true
  fi
  set_cis_sysctls
  join_what_lives
  install_settings
  DEADLINE=$((SECONDS + V[timeout_seconds]))
  start
  wait_for_node
  # Only now: whatever failed before finds its downloads again.
  rm -rf -- "$MEDIA"
}

read_values() {
  payload_read
  require_text type version source config_yaml identity node_name timeout_seconds
  require method install_url artifacts_url artifacts_sha256 registries_yaml manifests
  optional oidc_ca
  optional cluster_urls
  optional cluster_ca
  optional audit_policy
  optional trust_sha256
  optional proxy_http
  optional proxy_https
  optional proxy_no
  one_of type server agent
  one_of source online airgap
  number timeout_seconds
  [[ ${V[method]} =~ ^(tar|rpm)?$ ]] || die "the value 'method' is '${V[method]}'" "write tar or rpm, or leave it empty for the installer's own choice" 2
  version_numbers "${V[version]}" >/dev/null || die "the RKE2 version '${V[version]}' is not one" "write it like v1.36.3+rke2r1" 2
  case ${V[source]} in
    airgap) require_text artifacts_url artifacts_sha256 ;;
    online) require_text install_url ;;
  esac
  must_be_root
  one_at_a_time
  stage
}

# ---- what is there ----------------------------------------------------------------------------

rke2_binary() {
  local path
  for path in /usr/local/bin/rke2 /opt/rke2/bin/rke2 /usr/bin/rke2; do
    [[ ! -x $path ]] || { printf '%s' "$path"; return; }
  done
}

installed_version() {
  local binary found
  binary=$(rke2_binary)
  [[ -n $binary ]] || return 0
  # A binary that a dying run left half written has no version, and is installed again.
  found=$("$binary" --version 2>/dev/null | awk '$1 == "rke2" && $2 == "version" { print $3; exit }') || true
  printf '%s' "$found"
}

unit_file() { systemctl show -P FragmentPath "$UNIT.service"; }

other_type_check() {
  local other=agent
  [[ ${V[type]} == server ]] || other=server
  ! systemctl is-active --quiet "rke2-$other" || die "this host runs as an RKE2 $other and is planned as a ${V[type]}" "remove it from the cluster and run rke2-uninstall.sh on it first, or plan it as a $other"
}

# An upgrade cannot be undone without a snapshot from before.
snapshot() {
  [[ ${V[type]} == server ]] && systemctl is-active --quiet rke2-server || return 0
  "$(rke2_binary)" etcd-snapshot save --name "before-${V[version]//[+]/-}" >"$STAGE/snapshot" 2>&1 </dev/null || die "no etcd snapshot could be taken before the upgrade from $1: $(said "$STAGE/snapshot" 'level=(fatal|error)|error')" "mend the cluster first; nothing was upgraded"
  changed "etcd snapshot before the upgrade from $1"
}

# keep_release: the files of the RKE2 that runs, of whatever place the installer chose.
keep_release() {
  local file prefix
  prefix=$(rke2_binary)
  prefix=${prefix%/bin/rke2}
  for file in "$prefix"/bin/rke2* "$prefix"/lib/systemd/system/rke2-* "$prefix"/share/rke2/*; do
    [[ ! -f $file ]] || before_change "$file"
  done
  undo_by systemctl daemon-reload
}

# ---- install ----------------------------------------------------------------------------------

# artifacts PATTERN: sets NAMES to the listed files that match, and SUMS to their sums.
declare -gA SUMS=()
artifacts() {
  local sum name
  NAMES=()
  while read -r sum name; do
    name=${name#\*}
    [[ -n $sum ]] || continue
    [[ -n $name && $name != */* && $name != .* ]] || die "artifacts_sha256 has a line that is not 'SUM  FILE'" "write lines like those of sha256sum" 2
    # shellcheck disable=SC2053 # a pattern on purpose
    [[ $name == $1 ]] || continue
    NAMES+=("$name")
    SUMS[$name]=$sum
  done <<<"${V[artifacts_sha256]}"
}

artifact_url() { printf '%s/%s' "${V[artifacts_url]%/}" "${1//+/%2B}"; }

# RKE2 imports whatever lies in the images folder: a file goes there only when it is whole and right.
stage_images() {
  local name
  folder "$IMAGES"
  artifacts 'rke2-images*'
  ((${#NAMES[@]})) || die "artifacts_sha256 lists no rke2-images file" "list the image archives of the release, e.g. rke2-images-core.linux-amd64.tar.zst"
  for name in "${NAMES[@]}"; do
    if [[ -f $IMAGES/$name && $(sha256_of "$IMAGES/$name") == "${SUMS[$name],,}" ]]; then
      unchanged "$IMAGES/$name"
      continue
    fi
    fetch_verified "$(artifact_url "$name")" "$MEDIA/$name" "${SUMS[$name]}"
    before_rename "$IMAGES/$name"
    install -m 0644 "$MEDIA/$name" "$IMAGES/.$name.opstella"
    mv -f "$IMAGES/.$name.opstella" "$IMAGES/$name"
    rm -f "$MEDIA/$name"
    changed "$IMAGES/$name"
    RESTART=true
  done
}

install_rke2() {
  local name environment=(INSTALL_RKE2_TYPE="${V[type]}")
  folder "$MEDIA"
  if [[ ${V[source]} == airgap ]]; then
    artifacts '*'
    for name in install.sh rke2.linux-amd64.tar.gz sha256sum-amd64.txt; do
      [[ -v SUMS[$name] ]] || die "artifacts_sha256 lists no $name" "list every file of the air-gapped installation"
      fetch_verified "$(artifact_url "$name")" "$MEDIA/$name" "${SUMS[$name]}"
    done
    environment+=(INSTALL_RKE2_METHOD=tar INSTALL_RKE2_ARTIFACT_PATH="$MEDIA")
  else
    artifacts '*'
    if [[ -v SUMS[install.sh] ]]; then
      fetch_verified "${V[install_url]}" "$MEDIA/install.sh" "${SUMS[install.sh]}"
    else
      fetch "${V[install_url]}" "$MEDIA/install.sh"
    fi
    environment+=(INSTALL_RKE2_VERSION="${V[version]}" INSTALL_RKE2_METHOD="${V[method]}")
  fi
  # The installer keeps its copies on disk, not in memory; it finds the proxy in the environment.
  proxy_use
  if ! env TMPDIR="$MEDIA" "${environment[@]}" sh "$MEDIA/install.sh" >"$STAGE/install" 2>&1 </dev/null; then
    tail -n 30 "$STAGE/install" | redact >&2
    die "the RKE2 installer failed: $(said "$STAGE/install" '^\[ERROR\]|^curl: \(')" "$(installer_remedy)"
  fi
  systemctl daemon-reload
  name=$(installed_version)
  [[ $name == "${V[version]}" ]] || die "the installer brought RKE2 ${name:-of no version} instead of ${V[version]}" "put the files of one release on the media server, and its version into the settings"
  changed "RKE2 $name"
}

# installer_remedy: by what the installer and the curl below it said.
installer_remedy() {
  if grep -q '^curl: (' "$STAGE/install"; then curl_remedy "$(grep '^curl: (' "$STAGE/install" | tail -n 1)"
  elif grep -q 'sha256 does not match' "$STAGE/install"; then echo "put the files of one release on the media server, or let the proxy hand on the release's files unchanged"
  elif grep -q 'existing RKE2 RPMs' "$STAGE/install"; then echo "RKE2 was installed as packages here: run rke2-uninstall.sh first, or give a fresh host"
  else echo "read its lines above"; fi
}

# ---- configure --------------------------------------------------------------------------------

install_proxy() {
  local text='' file
  [[ -z ${V[proxy_http]} ]] || text+="HTTP_PROXY=${V[proxy_http]}"$'\n'
  [[ -z ${V[proxy_https]} ]] || text+="HTTPS_PROXY=${V[proxy_https]}"$'\n'
  [[ -z $text ]] || text+="NO_PROXY=${V[proxy_no]//$'\n'/,}"$'\n'
  file=/etc/default/$UNIT
  if [[ -n $text ]]; then
    install_text "$file" 0600 "$text"
  else
    remove_file "$file"
  fi
  [[ $DID == unchanged ]] || RESTART=true
}

# Where SELinux is enforced: the policy before the tarball, whose installer then labels what it unpacks, and RKE2 told to
# label containers, which a tarball does not switch on (docs.rke2.io, Security, SELinux).
use_selinux() {
  local repository=opstella-rke2-common file
  selinux_enforcing || return 0
  file=/etc/yum.repos.d/$repository.repo
  [[ $(os_family) == rhel ]] || die "SELinux is enforced here, and RKE2 has a policy for the RHEL family only" "write SELINUX=permissive into /etc/selinux/config and: setenforce 0"
  if package_installed rke2-selinux; then
    unchanged "package rke2-selinux"
  elif [[ ${V[source]} == online ]]; then
    # Switched off, so that no other installation depends on it; its common part serves every release of RKE2.
    install_text "$file" 0644 "[$repository]"$'\n'"name=RKE2 SELinux policy"$'\n'"baseurl=$SELINUX_PACKAGES/rke2/stable/common/centos/9/noarch"$'\n'"enabled=0"$'\n'"gpgcheck=1"$'\n'"repo_gpgcheck=1"$'\n'"gpgkey=$SELINUX_PACKAGES/public.key"$'\n'
    dnf install --setopt=install_weak_deps=False --enablerepo="$repository" rke2-selinux || packages_failed "cannot install rke2-selinux"
    policy_installed
  else
    dnf install --setopt=install_weak_deps=False rke2-selinux || packages_failed "cannot install rke2-selinux, which RKE2 needs where SELinux is enforced"
    policy_installed
  fi
  # Volumes lie on NFS.
  selinux_allow virt_use_nfs "containers use NFS volumes"
  grep -Eq '^"?selinux"?:' <<<"${V[config_yaml]}" || V[config_yaml]=$'selinux: true\n'"${V[config_yaml]}"
}

# What was there before the policy gets its types.
policy_installed() {
  restorecon -R -i /etc/systemd/system/rke2* /usr/local/lib/systemd/system/rke2* /usr/local/bin/rke2* /opt/rke2 "$CONFIG" "$DATA" >&2 || true
  changed "package rke2-selinux"
  RESTART=true
}

# NetworkManager would take the network plugin's interfaces over and break its routes.
leave_interfaces_to_cni() {
  systemctl is-active --quiet NetworkManager || return 0
  install_text /etc/NetworkManager/conf.d/opstella-cni.conf 0644 "$UNMANAGED"
  if [[ $DID == unchanged ]] && in_use rke2-interfaces "$UNMANAGED"; then return; fi
  undo_by systemctl reload NetworkManager
  not_in_use rke2-interfaces
  systemctl reload NetworkManager
  now_in_use rke2-interfaces "$UNMANAGED"
}

# The CIS profile ends RKE2 at once unless the kernel already has these values.
set_cis_sysctls() {
  local path line
  grep -Eq '^"?profile"?:[[:space:]]*"?cis' <<<"${V[config_yaml]}" || return 0
  id etcd >/dev/null 2>&1 || die "the CIS profile needs the user etcd, which is missing" "run the preparation of this host with cis: true"
  for path in "${CIS_SHARE[@]}"; do
    [[ ! -r $path/rke2-cis-sysctl.conf ]] || break
  done
  line=$(<"$path/rke2-cis-sysctl.conf")
  install_text /etc/sysctl.d/60-rke2-cis.conf 0644 "$line"$'\n'
  if [[ $DID == unchanged ]] && in_use rke2-cis-sysctls "$line"; then return; fi
  before_sysctls "$line"
  not_in_use rke2-cis-sysctls
  if ! sysctl -q -p /etc/sysctl.d/60-rke2-cis.conf >"$STAGE/sysctl" 2>&1; then
    in_container || die "the kernel does not take the sysctls of the CIS profile: $(said "$STAGE/sysctl" '^sysctl:')" "set them by hand; they stand in /etc/sysctl.d/60-rke2-cis.conf"
    warning "the sysctls of the CIS profile belong to the machine around this container; set them there"
  fi
  now_in_use rke2-cis-sysctls "$line"
}

# A first server makes a cluster. With an empty disk, while the cluster lives on the other servers, it joins them: a
# second cluster behind the same address would get half of its connections. Later runs join as it did.
join_what_lives() {
  local url authority
  list cluster_urls
  ((${#LIST[@]})) || return 0
  if [[ ! -e $STATE/rke2-joined ]]; then
    [[ ! -d $DATA/server/db ]] || return 0
    for url in "${LIST[@]}"; do
      # Whether anything answers at all: nothing secret is sent, and what answers is verified before anything is.
      [[ $(supervisor "$url/ping" --insecure) == pong ]] || continue
      is_this_cluster "$url"
      before_change "$STATE/rke2-joined"
      printf '%s\n' "$url" >"$STATE/rke2-joined"
      changed "this server has no data, and $url answers: it joins that cluster instead of making another"
      break
    done
    [[ -e $STATE/rke2-joined ]] || return 0
  fi
  # Once it is a member, its own files know the CA.
  authority=$(ca_hash "$DATA/server/token")
  authority=${authority:-${V[cluster_ca]}}
  [[ -z $authority ]] || V[config_yaml]=${V[config_yaml]/#token: /token: K10$authority::server:}
  V[config_yaml]="server: ${LIST[0]}"$'\n'"${V[config_yaml]}"
}

# supervisor URL CURL-OPTION...: the answer of a server's port 9345, or nothing.
supervisor() { curl --silent --fail --noproxy '*' --max-time 5 "${@:2}" "$1" || true; }

# What answers at $1 is the cluster of cluster_ca: its CA has that hash, and its certificate is that CA's.
is_this_cluster() {
  local remedy="let pulumi read it again from another server: pulumi up --replace '**-living-ca'. If $1 is not of this stack, free that address"
  [[ -n ${V[cluster_ca]} ]] || die "this server has no data, and a cluster answers at $1 whose CA is not known: the token would go to whoever answers" "$remedy"
  supervisor "$1/cacerts" --insecure >"$STAGE/cacerts"
  [[ $(sha256_of "$STAGE/cacerts") == "${V[cluster_ca]}" && $(supervisor "$1/ping" --cacert "$STAGE/cacerts") == pong ]] ||
    die "this server has no data, and what answers at $1 is not the cluster whose CA has the SHA-256 ${V[cluster_ca]}" "$remedy"
}

install_settings() {
  local n=0 name
  folder "$CONFIG"
  install_text "$CONFIG/config.yaml" 0600 "${V[config_yaml]}"
  [[ $DID == unchanged ]] || RESTART=true
  if [[ -n ${V[registries_yaml]} ]]; then
    install_text "$CONFIG/registries.yaml" 0600 "${V[registries_yaml]}"
  else
    remove_file "$CONFIG/registries.yaml"
  fi
  [[ $DID == unchanged ]] || RESTART=true
  [[ ${V[type]} == server ]] || return 0
  if [[ -n ${V[audit_policy]} ]]; then
    install_text "$CONFIG/audit-policy.yaml" 0600 "${V[audit_policy]}"
    [[ $DID == unchanged ]] || RESTART=true
  fi
  # The API server verifies the identity provider with it, and reads it at its start only.
  if [[ -n ${V[oidc_ca]} ]]; then
    install_text "$CONFIG/oidc-ca.crt" 0644 "${V[oidc_ca]}"
  else
    remove_file "$CONFIG/oidc-ca.crt"
  fi
  [[ $DID == unchanged ]] || RESTART=true
  list manifests
  # RKE2 watches this folder: no restart.
  for name in ${LIST[@]+"${LIST[@]}"}; do
    n=$((n + 1))
    [[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || die "the manifest name '$name' is not a file name" "use letters, digits, dot, dash" 2
    require_text "manifest_$n"
    folder "$DATA/server" 0700
    install_text "$DATA/server/manifests/$name" 0600 "${V[manifest_$n]}"
  done
}

# ---- remove -----------------------------------------------------------------------------------

# The mark of ownership stays: the host is still prepared for this stack and may be used by it again.
remove_rke2() {
  local prefix found=
  # What is taken off is not put back; running again goes on.
  no_way_back "RKE2 is being taken off this host; run again"
  for prefix in /usr/local/bin /opt/rke2/bin /usr/bin; do
    [[ ! -x $prefix/rke2-uninstall.sh ]] || { found=$prefix/rke2-uninstall.sh; break; }
  done
  if [[ -n $found ]]; then
    if ! "$found" >"$STAGE/uninstall" 2>&1 </dev/null; then
      tail -n 30 "$STAGE/uninstall" | redact >&2
      die "$found failed" "read its lines above"
    fi
    changed "RKE2 removed"
  else
    unchanged "RKE2 is not installed"
  fi
  rm -rf -- "$CONFIG" "$DATA" "$MEDIA"
  rm -f -- "/etc/default/$UNIT" /etc/sysctl.d/60-rke2-cis.conf /etc/yum.repos.d/opstella-rke2-common.repo "$STATE/in-use/rke2" "$STATE/in-use"/rke2-* "$STATE/rke2-joined"
}

# ---- run --------------------------------------------------------------------------------------

start() {
  STARTED=$(date +%s)
  service_enable "$UNIT"
  local settings="${V[version]} ${V[config_yaml]} ${V[registries_yaml]} ${V[oidc_ca]} ${V[audit_policy]} ${V[proxy_http]} ${V[proxy_https]} ${V[proxy_no]}"
  if [[ $RESTART == false ]] && in_use rke2 "$settings" && systemctl is-active --quiet "$UNIT" && knows_the_roots; then
    now_in_use rke2-trust "${V[trust_sha256]}"
    unchanged "$UNIT runs"
    return
  fi
  if [[ $UPGRADED == true && ${V[type]} == server ]]; then
    no_way_back "RKE2 ${V[version]} was started on this server and may have converted its data. Leave opstella:kubernetes.version at ${V[version]}, correct what the lines above name and run again; the data from before are in the etcd snapshot before-${V[version]//[+]/-}"
  else
    undo_by service_back "$UNIT" active enabled restart 300
  fi
  not_in_use rke2
  not_in_use rke2-trust
  systemctl reset-failed "$UNIT" 2>/dev/null || true
  systemctl restart --no-block "$UNIT"
  if ! wait_until "$((DEADLINE - SECONDS))" "$UNIT to be active" service_is_up; then
    give_up "the service $UNIT did not become active"
  fi
  now_in_use rke2 "$settings"
  now_in_use rke2-trust "${V[trust_sha256]}"
  changed "$UNIT started"
}

# knows_the_roots: RKE2, containerd in it, and what copies etcd to an object store read the machine's trusted
# certificates once, when they start. Without a mark, that is known by when they did.
knows_the_roots() {
  local uptime started
  [[ ! -e $STATE/in-use/rke2-trust ]] || { in_use rke2-trust "${V[trust_sha256]}"; return; }
  [[ -e $STATE/in-use/trust-store ]] || return 0
  read -r uptime _ </proc/uptime
  started=$(systemctl show -P ExecMainStartTimestampMonotonic "$UNIT")
  (($(date +%s) - ${uptime%.*} + started / 1000000 > $(stat -c %Y "$STATE/in-use/trust-store")))
}

service_is_up() {
  local restarts
  systemctl is-active --quiet "$UNIT" && [[ $(systemctl show -P Job "$UNIT") =~ ^0?$ ]] && return 0
  # It restarts itself for ever; ten times over, waiting longer is no use.
  restarts=$(systemctl show -P NRestarts "$UNIT")
  ((restarts < 10)) || give_up "the service $UNIT starts and ends again ($restarts times)"
  return 1
}

# give_up WHAT: with the errors that RKE2 and its kubelet logged in this run, and the remedy for what they say.
give_up() {
  local log=$STAGE/journal kubelet=$DATA/agent/logs/kubelet.log
  journal_tail "$UNIT" 30
  {
    [[ ! -f $kubelet || $(stat -c %Y "$kubelet") -lt $STARTED ]] || tail -n 200 "$kubelet"
    journalctl --no-pager --quiet --output=cat --unit "$UNIT" --since "@$STARTED" --lines 1000
  } 2>/dev/null | sed -E -e 's/^time="[^"]*" //' -e 's/^([EFIW])[0-9]{4} [0-9:.]+ +[0-9]+ /\1 /' | awk '!said[$0]++' >"$log" || true
  die "$1: $(said "$log" "$RKE2_ERRORS")" "$(rke2_remedy "$log"). Running again tries again"
}

RKE2_ERRORS='level=(fatal|error)|^[EF] |^"?Error: |server is not ready|flag provided but not defined|unknown .*labels'

# rke2_remedy LOG: by the words of RKE2, of its kubelet and of the kernel; the most specific one first.
rke2_remedy() {
  local log=$1
  if grep -qE "unknown 'kubernetes.io' or 'k8s.io' labels" "$log"; then
    echo "take the labels that are named there out of opstella:clusters.NAME.workers or masters (labels, nodeLabels): a kubelet may not give them to itself"
  elif grep -qE 'Node password rejected' "$log"; then
    echo "another machine joined as ${V[node_name]} before: delete the Secret ${V[node_name]}.node-password.rke2 in kube-system, or restore /etc/rancher/node/password on this host"
  elif grep -qE 'duplicate node name found' "$log"; then
    echo "the cluster still counts an earlier ${V[node_name]} as a member of etcd: kubectl delete node ${V[node_name]} first"
  elif grep -qE 'token CA hash does not match' "$log"; then
    echo "the cluster has another CA than the one that the first server had when its hash was read: pulumi up --replace '**-nodes-ca' reads it again. If the cluster was not made anew, find out who answers at the registration address"
  elif grep -qE 'encrypted with different token|not authorized|401 Unauthorized|invalid token|failed to validate token' "$log"; then
    echo "this host and the cluster have different tokens: if it belonged to another cluster before, run rke2-uninstall.sh on it; if the cluster was restored, give it the token that it was made with"
  elif grep -qE 'critical configuration (value )?mismatch' "$log"; then
    echo "this server's settings differ from those of the running servers: keep what the message names as it was when the cluster was made"
  elif grep -qE 'invalid kernel parameter value|unknown (user|group) etcd' "$log"; then
    echo "the CIS profile needs these kernel parameters and the user etcd: see /etc/sysctl.d/60-rke2-cis.conf for what overrides them (sysctl --system), or set opstella:kubernetes.cisProfile to false"
  elif grep -qE 'flag provided but not defined|Incorrect Usage|unknown flag' "$log"; then
    echo "RKE2 ${V[version]} does not know a setting that is named there: choose another opstella:kubernetes.version, or take the setting out"
  elif grep -qE 'no space left on device' "$log"; then
    echo "free some space at /var/lib/rancher and /var/lib/kubelet: df -h"
  elif grep -qE 'address already in use' "$log"; then
    echo "another program holds the port that is named there: ss -lntp"
  elif grep -qE 'x509: certificate has expired or is not yet valid' "$log"; then
    echo "compare the clocks of the machines (chronyc tracking); certificates that really expired are renewed by: systemctl restart $UNIT"
  elif grep -qE 'x509: ' "$log"; then
    echo "a certificate is not trusted by this host: of a registry or proxy, add its authority to opstella:extraCaCertificates; of port 9345, see that the registration address leads to this cluster"
  elif grep -qE 'avc: +denied|permission denied' "$log"; then
    echo "look for what the kernel denied (ausearch -m avc -ts recent; journalctl -k); with SELinux, reboot this host once after rke2-selinux was installed"
  elif grep -qE '(:9345|/cacerts).*(connection refused|no route to host|i/o timeout|deadline exceeded|EOF|Client\.Timeout)' "$log"; then
    echo "this host does not reach the registration address at port 9345: see that the first server runs and the load balancer has it as healthy, and what lies between them filters"
  elif grep -qE 'failed to (pull|resolve)|ErrImagePull|pulling image|toomanyrequests|Failed to pull' "$log"; then
    echo "this host cannot load images: check the registry that is named there, opstella:media.registryMirror and opstella:proxy"
  else
    echo "nothing there is known to this program: read the lines above, and: journalctl -u $UNIT; $DATA/agent/logs/kubelet.log"
  fi
}

wait_for_node() {
  [[ ${V[type]} == server ]] || return 0
  wait_until "$((DEADLINE - SECONDS))" "the Kubernetes API on this host to be ready" api_is_ready || give_up "the Kubernetes API of this host did not become ready (/readyz)"
  wait_until "$((DEADLINE - SECONDS))" "node ${V[node_name]} to be Ready" node_is_ready || give_up "node ${V[node_name]} did not become Ready"
  unchanged "node ${V[node_name]} is Ready"
}

# api PATH: a request as administrator, with the certificates of RKE2's own kubeconfig.
api() {
  local key
  [[ -s $CONFIG/rke2.yaml ]] || return 1
  for key in certificate-authority-data client-certificate-data client-key-data; do
    (umask 077 && awk -v key="$key:" '$1 == key { print $2; exit }' "$CONFIG/rke2.yaml" | base64 -d >"$STAGE/$key") || return 1
  done
  curl --fail --silent --max-time 10 --noproxy '*' --cacert "$STAGE/certificate-authority-data" --cert "$STAGE/client-certificate-data" \
    --key "$STAGE/client-key-data" "$(awk '$1 == "server:" { print $2; exit }' "$CONFIG/rke2.yaml")$1"
}

api_is_ready() { [[ $(api /readyz) == ok ]]; }

node_is_ready() {
  local answer
  answer=$(api "/api/v1/nodes/${V[node_name]}") || return 1
  [[ $(tr -d '[:space:]' <<<"$answer") =~ \"type\":\"Ready\",\"status\":\"True\" ]]
}
