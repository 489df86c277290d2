# shellcheck shell=bash
# One NFS export on fixed ports, by the kernel's server or by NFS-Ganesha (user space).

REMEDY="read the lines above; ss -lntp shows who holds the ports 2049, 111 and 33333"

main() {
  payload_read
  require_text server path
  require exports ganesha_conf nfs_conf
  one_of server kernel ganesha
  [[ ${V[path]} == /?* && ${V[path]} != */../* ]] || die "the value 'path' is '${V[path]}'" "write an absolute path" 2
  must_be_root
  one_at_a_time
  make_share
  case ${V[server]} in
    kernel) serve_by_kernel ;;
    ganesha) serve_by_ganesha ;;
  esac
  local port
  for port in 2049 111 33333; do
    wait_until 60 "port $port/tcp to listen" listens "$port" || die "nothing listens on port $port/tcp" "$REMEDY"
  done
}

listens() { [[ -n $(ss -H -l -n -t "sport = :$1") ]]; }

# A share that is already there keeps its owner, its mode and what it holds.
make_share() {
  if [[ -d ${V[path]} ]]; then
    unchanged "${V[path]}"
  else
    undo_by share_back "${V[path]}"
    folder "${V[path]}"
    changed "${V[path]}"
  fi
  [[ $(stat -f -c %T "${V[path]}") != overlay* ]] || die "${V[path]} lies on an overlay file system, which gives no lasting file handles and cannot be exported" "mount a disk there (ext4, xfs)"
}

# Only what this run made; a share in which something is stays.
share_back() { [[ ! -d $1 ]] || rmdir --ignore-fail-on-non-empty -- "$1"; }

serve_by_kernel() {
  require_text exports nfs_conf
  ! systemctl is-active --quiet nfs-ganesha || die "NFS-Ganesha runs here and holds the ports" "set the server to 'ganesha', or first: systemctl disable --now nfs-ganesha"
  modprobe nfsd 2>/dev/null || true
  grep -qw nfsd /proc/filesystems || die "this kernel has no NFS server (module nfsd)" "install the distribution's full kernel package, or set the NFS server to 'ganesha'"
  case $(os_family) in
    debian) package_install nfs-kernel-server rpcbind ;;
    rhel) package_install nfs-utils rpcbind ;;
  esac
  service_running rpcbind 30 "$REMEDY"
  install_text /etc/exports.d/opstella.exports 0644 "${V[exports]}"
  install_text /etc/nfs.conf.d/opstella.conf 0644 "${V[nfs_conf]}"
  service_enable nfs-server
  service_with nfs-server "${V[nfs_conf]}"
  if in_use nfs-exports "${V[exports]}"; then
    unchanged "exports"
  else
    undo_by exportfs -ra
    not_in_use nfs-exports
    exportfs -ra
    now_in_use nfs-exports "${V[exports]}"
    changed "exports"
  fi
}

serve_by_ganesha() {
  require_text ganesha_conf
  if systemctl is-active --quiet nfs-server || systemctl is-active --quiet nfs-kernel-server; then
    die "the kernel's NFS server runs here and holds the ports" "set the server to 'kernel', or first: systemctl disable --now nfs-server"
  fi
  # Before the package, which starts the server at once: it must not serve its sample export.
  install_text /etc/ganesha/ganesha.conf 0644 "${V[ganesha_conf]}"
  package_install rpcbind
  service_running rpcbind 30 "$REMEDY"
  package_install nfs-ganesha nfs-ganesha-vfs
  service_enable nfs-ganesha
  service_with nfs-ganesha "${V[ganesha_conf]}"
}

# service_with UNIT TEXT: restarted unless it already runs with TEXT.
service_with() {
  if in_use "$1" "$2"; then
    service_running "$1" 60 "$REMEDY"
  else
    before_service "$1"
    not_in_use "$1"
    service_restart "$1" 60 "$REMEDY"
    now_in_use "$1" "$2"
  fi
}
