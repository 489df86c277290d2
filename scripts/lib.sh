# shellcheck shell=bash
# What every host phase stands on. Only functions and settings: the sender appends one PHASE.sh and
# calls `main` with the payload on standard input. Needs bash 5, coreutils and systemd; no python, no jq.
#
# Lines that hold only a comment, and blank lines, are removed before sending: none may stand in a
# here-document or in a string that spans lines.

set -Eeuo pipefail
umask 022
export LC_ALL=C.UTF-8
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1

[[ -v HOME ]] || export HOME=/root

PHASE=${1:-phase}
# Bash keeps a here-document of more than 64 KiB in a file of $TMPDIR: in memory, and not inherited by children.
# On the operator's machine, without root, mktemp's folders go to memory too, where there is such a place: a private key is in both.
if ((EUID == 0)); then
  unset TMPDIR
  TMPDIR=/run
elif [[ -w /dev/shm ]]; then
  export TMPDIR=/dev/shm
fi

# Folders; a unit test points ROOT elsewhere.
ROOT=${OPSTELLA_TEST_ROOT:-}
STATE=$ROOT/etc/opstella
RUNTIME=$ROOT/run/opstella
BACKUPS=$ROOT/var/backups/opstella
UNDO=$ROOT/var/lib/opstella/undo
SYSCTLS=/proc/sys

declare -gA V=()
declare -gA PROXY=([http_proxy]='' [https_proxy]='' [no_proxy]='')
DIRECT=()
DID=unchanged
STAGE=
CHECKED=
AT_END=

# ---- messages ---------------------------------------------------------------------------------

say() { printf '%s: %s\n' "$PHASE" "$*" >&2; }
warning() { say "warning: $*"; }
changed() { DID=changed; say "changed: $*"; }
unchanged() { DID=unchanged; say "unchanged: $*"; }

# reply TEXT: what this phase was asked for, as its last step. The mark parts it from what the login printed.
reply() { printf '%s\n%s\n' '----- opstella reply -----' "$1" >&"${REPLY_TO:-1}"; }

# die WHAT REMEDY [STATUS]: the one way to stop on purpose. In a subshell it leaves with 99, which the
# trap of the parent takes as "already said".
die() {
  say "error: $1"
  [[ -z ${2:-} ]] || say "what to do: $2"
  ((BASH_SUBSHELL == 0)) || exit 99
  exit "${3:-1}"
}

# BASH_COMMAND is the text before expansion, so no value and no secret is in it.
on_error() {
  local status=$1 line=$2 command=$3 where=${FUNCNAME[1]:-main}
  trap - ERR
  ((status != 99)) || exit "$((BASH_SUBSHELL ? 99 : 1))"
  ((BASH_SUBSHELL == 0)) || exit "$status"
  say "error: the command \`${command%%$'\n'*}\` in ${where}, line ${line} of the program as sent, ended with status ${status}"
  say "what to do: fix what its own message above names and run again"
  exit 1
}
trap 'on_error "$?" "$LINENO" "$BASH_COMMAND"' ERR

# said FILE PATTERN: what another program said in FILE, in one line: its lines that match PATTERN (extended, any case),
# else its last ones; three at most.
said() {
  local lines
  lines=$(grep -iE -- "$2" "$1" 2>/dev/null | tail -n 3 || true)
  [[ -n $lines ]] || lines=$(grep -v '^[[:space:]]*$' "$1" 2>/dev/null | tail -n 3 || true)
  [[ -n $lines ]] || lines='nothing'
  printf '%s' "${lines//$'\n'/ / }" | redact
}

# finish: the one end of every phase, on purpose or by a signal. What changed is kept, or put back.
finish() {
  local status=$?
  # A signal must not end the way back, nor must the operator who no longer reads.
  trap '' PIPE TERM INT HUP
  trap - ERR EXIT
  set +eu
  # Whoever would find the journal later would put back what a good status says was done.
  [[ -z $AT_END ]] || "$AT_END" "$status" || ((status)) || status=1
  [[ -z $CHECKED ]] || rm -f -- "$CHECKED"
  [[ -z $STAGE ]] || rm -rf -- "$STAGE"
  exit "$status"
}
trap finish EXIT
# Without these, the status of a run that a signal ends is that of its last command, which may have been good.
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM

# stage: a private folder for this run, removed when it ends; in memory wherever root runs this.
stage() {
  [[ -z $STAGE ]] || return 0
  if ((EUID == 0)); then
    folder "$RUNTIME" 0700
    STAGE=$(mktemp -d "$RUNTIME/stage.XXXXXXXX")
  else
    STAGE=$(mktemp -d)
  fi
}

# ---- payload ----------------------------------------------------------------------------------

# payload_read: lines `NAME BASE64` from standard input into V, byte for byte (trailing newlines too).
# From here on standard output is the reply's alone: the command plugin copies both streams into one buffer without a lock,
# so that a line on standard output could displace the error of a phase that fails.
payload_read() {
  local name encoded text
  exec {REPLY_TO}>&1 1>&2
  while read -r name encoded; do
    [[ -n $name ]] || continue
    [[ $name =~ ^[a-z0-9_]+$ ]] || die "the payload has a line whose name is not [a-z0-9_]+" "send lines of the form: NAME BASE64" 2
    # Judged by its form: the status of a process substitution cannot be had reliably once it has ended.
    if [[ ! $encoded =~ ^[A-Za-z0-9+/]*={0,2}$ ]] || ((${#encoded} % 4)); then
      die "the value '$name' is not valid base64" "encode it with base64, without line breaks" 2
    fi
    if IFS= read -r -d '' text < <(printf '%s' "$encoded" | base64 -d); then
      die "the value '$name' contains a NUL byte, which no file or argument here can carry" "send text" 2
    fi
    V[$name]=$text
  done
}

# require NAME...: all of them must have been sent; names every missing one.
require() {
  local name missing=()
  for name in "$@"; do [[ -v V[$name] ]] || missing+=("$name"); done
  ((${#missing[@]} == 0)) || die "phase $PHASE was sent no value for: ${missing[*]}" "send it, empty where it does not apply (see scripts/README.md)" 2
}

# require_text NAME...: sent, and not empty.
require_text() {
  local name
  require "$@"
  for name in "$@"; do
    [[ -n ${V[$name]} ]] || die "phase $PHASE was sent an empty value for: $name" "give it a value (see scripts/README.md)" 2
  done
}

optional() { [[ -v V[$1] ]] || V[$1]=${2:-}; }

one_of() {
  local name=$1 allowed
  shift
  for allowed in "$@"; do [[ ${V[$name]} != "$allowed" ]] || return 0; done
  die "the value '$name' is '${V[$name]}'" "write one of: $*" 2
}

number() {
  [[ ${V[$1]} =~ ^[0-9]+$ ]] || die "the value '$1' is '${V[$1]}', not a whole number" "write digits only" 2
}

# ---- the host ---------------------------------------------------------------------------------

must_be_root() { ((EUID == 0)) || die "phase $PHASE runs as $(id -un), not as root" "let the SSH user use sudo without a password"; }

# one_at_a_time: two runs on one host would undo each other. What a run before left half done is settled first.
one_at_a_time() {
  local lock=$RUNTIME/lock seconds=300
  # Not in /run/lock, where any user of the host may hold or make a file of that name.
  folder "$RUNTIME" 0700
  exec {LOCK}>"$lock"
  flock -w "$seconds" "$LOCK" || die "another run has held $lock for $seconds s" "wait for it to end, or end it: fuser -v $lock"
  journal_resume
}

# shellcheck disable=SC1091 # a file of the host
os_value() { (. "$ROOT/etc/os-release" 2>/dev/null && printf '%s' "${!1:-}") || true; }

# os_family: debian or rhel, by what the system calls itself, else by what installs packages.
os_family() {
  case " $(os_value ID) $(os_value ID_LIKE) " in
    *' debian '* | *' ubuntu '*) echo debian; return ;;
    *' rhel '* | *' centos '* | *' fedora '*) echo rhel; return ;;
  esac
  if type -P apt-get >/dev/null; then echo debian
  elif type -P dnf >/dev/null; then echo rhel
  else die "neither apt-get nor dnf is here" "use Debian 12/13, Ubuntu 22.04/24.04 or the RHEL 9 family"; fi
}

# A container shares its kernel, clock and swap with the machine around it, which is not ours to change.
in_container() { systemd-detect-virt --quiet --container; }

# identity_check WANTED: refuses a host that something else owns. Never writes.
identity_problem() {
  local wanted=$1 present=() found
  if [[ -e $STATE/identity ]]; then
    found=$(<"$STATE/identity")
    [[ $found == "$wanted" ]] || printf '%s' "this host already belongs to '$found' (it says so in $STATE/identity), not to '$wanted'; give another host, or take this one out of '$found' first and remove that file"
    return 0
  fi
  [[ ! -e $ROOT/etc/rancher/rke2/config.yaml && ! -d $ROOT/var/lib/rancher/rke2/server && ! -d $ROOT/var/lib/rancher/rke2/agent ]] || present+=("RKE2 (/etc/rancher/rke2, /var/lib/rancher/rke2)")
  [[ ! -e $ROOT/etc/gitlab/gitlab.rb && ! -d $ROOT/var/opt/gitlab ]] || present+=("GitLab (/etc/gitlab, /var/opt/gitlab)")
  ((${#present[@]} == 0)) || printf '%s' "this host already runs ${present[*]} that was not installed from here ($STATE/identity is missing); give a fresh host, or write '$wanted' into that file to hand this one over"
}

identity_check() {
  local problem
  problem=$(identity_problem "$1")
  [[ -z $problem ]] || die "${problem%%;*}" "${problem#*; }"
}

# ---- files ------------------------------------------------------------------------------------

# install_text PATH MODE TEXT [OWNER:GROUP]: writes only what differs, in one rename, and keeps a copy of
# what it replaces. Sets DID. The text never becomes an argument of a process.
install_text() {
  local path=$ROOT$1 mode=$2 text=$3 owner=${4:-root:root} staged
  stage
  staged=$STAGE/text
  (umask 077 && printf '%s' "$text" >"$staged")
  install_staged "$staged" "$path" "$mode" "$owner"
}

install_staged() {
  local staged=$1 path=$2 mode=$3 owner=${4:-root:root} fresh
  if [[ -f $path ]] && cmp -s "$staged" "$path" && [[ $(stat -L -c '%a %U:%G' "$path") == "${mode#0} $owner" ]]; then
    unchanged "$path"
    return
  fi
  before_change "$path"
  folder "${path%/*}"
  [[ ! -f $path || -v NO_COPY ]] || keep_copy "$path"
  fresh=${path%/*}/.${path##*/}.opstella
  install -m "$mode" -o "${owner%:*}" -g "${owner#*:}" "$staged" "$fresh"
  # A file that is itself a mount point can only be written through.
  if mountpoint -q "$path"; then
    cat "$fresh" >"$path"
    rm -f "$fresh"
  else
    mv -fT "$fresh" "$path"
  fi
  selinux_label "$path"
  changed "$path"
}

# selinux_label PATH: the type that the policy has for PATH. A file that was renamed into place keeps the type of the
# folder it was made in, which a confined program (NetworkManager, sshd, named) may not be allowed to read.
selinux_label() {
  command -v selinuxenabled >/dev/null && selinuxenabled || return 0
  restorecon "$1" >&2 || warning "SELinux: the type of $1 could not be set"
}

# check_beside PATH TEXT COMMAND...: the status of COMMAND, whose last argument is a copy of TEXT in the folder of PATH,
# removed afterwards. A program that AppArmor or SELinux confines reads its own configuration folder and no other.
check_beside() {
  local text=$2 status=0
  CHECKED=$ROOT$1.opstella-check
  shift 2
  (umask 077 && printf '%s' "$text" >"$CHECKED")
  "$@" "$CHECKED" || status=$?
  rm -f -- "$CHECKED"
  CHECKED=
  return "$status"
}

# keep_copy PATH: the replaced file goes to /var/backups/opstella, newest five kept, readable by root only.
keep_copy() {
  local path=$1 name old
  name=${path#"$ROOT"/}
  name=$BACKUPS/${name//\//_}
  folder "$BACKUPS" 0700
  install -m 0600 "$path" "$name.$(date -u +%Y%m%dT%H%M%S.%N)"
  find "$BACKUPS" -maxdepth 1 -name "${name##*/}.2*" | sort -r | tail -n +6 | while IFS= read -r old; do rm -f -- "$old"; done
}

# install_block PATH TEXT: keeps TEXT between two markers of PATH and leaves every other line alone.
install_block() {
  local path=$1 block=$2 begin='# BEGIN opstella' end='# END opstella' before='' line inside=false
  if [[ -f $ROOT$path ]]; then
    while IFS= read -r line || [[ -n $line ]]; do
      if [[ $line == "$begin" ]]; then inside=true
      elif [[ $line == "$end" ]]; then inside=false
      elif ! $inside; then before+=$line$'\n'; fi
    done <"$ROOT$path"
    ! $inside || die "$path has the line '$begin' without '$end'" "put the line '$end' where the block ends and run again"
  fi
  [[ -z $block ]] || before+=$begin$'\n'${block%$'\n'}$'\n'$end$'\n'
  install_text "$path" 0644 "$before"
}

remove_file() {
  local path=$ROOT$1
  if [[ -e $path ]]; then
    before_change "$path"
    keep_copy "$path"
    rm -f -- "$path"
    changed "$path removed"
  else
    unchanged "$path absent"
  fi
}

# folder PATH [MODE]: made where it is missing; one that is there keeps its mode and its owner.
folder() { [[ -d $1 ]] || install -d -m "${2:-0755}" "$1"; }

# ---- way back ---------------------------------------------------------------------------------
# The engine keeps the values of the last run that ended well: when a change fails and is taken out of the settings,
# nothing differs for it, and nothing runs here. So a phase that does not end well leaves the machine as it was before.
# What it is about to change goes to a journal first, in $UNDO/PHASE, for root only:
#   files/PATH   as it was; `absent` lists what was not there, values/PATH what is restored by writing into it
#   steps        commands that put the former files to use, in order
#   undo.sh      the program that does both, for when this one is killed: a unit waits for the end of the run,
#                another one looks at every boot
#   final        there when nothing can be put back any more; it says why
# A phase that goes on where a killed one stopped keeps its journal: it always leads to what worked last.

JOURNAL=

# journal_name: a phase and the one that removes what it made have one journal.
journal_name() { printf '%s' "${PHASE%-remove}"; }

# settle STATUS: the end of a phase that has a journal.
settle() { if (($1 == 0)); then journal_drop; else take_back; fi; }

# journal_resume: under the lock, so whoever left a journal has ended. That of another phase is undone first.
journal_resume() {
  local found
  # Of a run that was killed while it dropped its journal: former files may hold former secrets.
  rm -rf -- "$UNDO/.ended"
  for found in "$UNDO"/*/; do
    [[ -e $found/undo.sh ]] || continue
    found=${found%/}
    if [[ ${found##*/} == "$(journal_name)" ]]; then
      JOURNAL=$found
      AT_END=settle
    else
      say "a run of the phase ${found##*/} did not end well here; what it changed is put back first"
      bash "$found/undo.sh" locked || warning "not everything could be put back; its lines above name what to do"
    fi
  done
}

# before_change PATH...: keeps what is at PATH, or that nothing is; only the first time, and before it is touched.
before_change() {
  local path above
  journal_open
  for path in "$@"; do
    if [[ -e $JOURNAL/files$path || -L $JOURNAL/files$path ]] || grep -qsxF -- "$path" "$JOURNAL/absent"; then continue; fi
    if [[ -e $path || -L $path ]]; then
      mkdir -p "$JOURNAL/files${path%/*}"
      rm -rf -- "$JOURNAL/part"
      cp -a --reflink=auto -- "$path" "$JOURNAL/part"
      mv -T -- "$JOURNAL/part" "$JOURNAL/files$path"
      if [[ -L $path ]]; then sync -- "$JOURNAL/files${path%/*}"; else sync -- "$JOURNAL/files$path" "$JOURNAL/files${path%/*}"; fi
    else
      printf '%s\n' "$path" >>"$JOURNAL/absent"
      # Folders made for it go too, if nothing else came into them.
      above=${path%/*}
      while [[ ! -d ${above:-/} ]]; do
        printf '%s\n' "$above" >>"$JOURNAL/folders"
        above=${above%/*}
      done
      sync -- "$JOURNAL/absent"
    fi
  done
}

# before_rename PATH: the same for a large file that is replaced by a rename, never written into: no copy is needed.
before_rename() {
  journal_open
  if [[ -f $1 && ! -e $JOURNAL/files$1 ]] && mkdir -p "$JOURNAL/files${1%/*}" && ln -- "$1" "$JOURNAL/files$1" 2>/dev/null; then return; fi
  before_change "$1"
}

# before_value PATH: the same for what the kernel shows as a file.
before_value() {
  journal_open
  [[ ! -e $JOURNAL/values$1 ]] || return 0
  mkdir -p "$JOURNAL/values${1%/*}"
  cat "$1" >"$JOURNAL/values$1"
}

# before_sysctls TEXT: the values that the kernel has now of those that TEXT sets.
before_sysctls() {
  local line path
  while IFS= read -r line; do
    [[ $line =~ ^[[:space:]]*-?([a-z0-9_./*-]+)[[:space:]]*= ]] || continue
    path=$SYSCTLS/${BASH_REMATCH[1]//./\/}
    [[ ! -r $path || ! -w $path ]] || before_value "$path"
  done <<<"$1"
}

# undo_by COMMAND...: what puts the former files to use; said before that is needed.
undo_by() {
  local line
  journal_open
  printf -v line '%q ' "$@"
  ! grep -qsxF -- "$line" "$JOURNAL/steps" || return 0
  printf '%s\n' "$line" >>"$JOURNAL/steps"
  sync -- "$JOURNAL/steps"
}

# before_service UNIT [reload]: how it stands now is how it shall be again; `reload` where that is enough for new files.
before_service() {
  local active=inactive
  ! grep -qsF -- "service_back $1 " "$JOURNAL/steps" || return 0
  ! systemctl is-active --quiet "$1" || active=active
  undo_by service_back "$1" "$active" "$(systemctl is-enabled "$1" 2>/dev/null || true)" "${2:-restart}"
}

# no_way_back REASON: from here on the machine can only go on. `way_back` takes that back.
no_way_back() {
  journal_open
  printf '%s' "$1" >"$JOURNAL/final"
  sync -- "$JOURNAL/final"
}

way_back() { rm -f -- "$JOURNAL/final"; }

# journal_open: before the first change: the program that puts back, and the unit that runs it if this run cannot.
journal_open() {
  [[ -z $JOURNAL || ! -v ARMED ]] || return 0
  JOURNAL=$UNDO/$(journal_name)
  AT_END=settle
  folder "$UNDO" 0700
  folder "$JOURNAL" 0700
  undo_program >"$JOURNAL/undo.part"
  mv -fT -- "$JOURNAL/undo.part" "$JOURNAL/undo.sh"
  sync -- "$JOURNAL/undo.sh" "$JOURNAL" "$UNDO"
  ARMED=true
  [[ -z $ROOT ]] || return 0
  undo_at_boot
  systemd-run --quiet --collect --unit="opstella-undo-$(journal_name)-$$" --description="opstella: put back what the phase $PHASE changed, if it is killed" \
    /bin/bash "$JOURNAL/undo.sh"
}

undo_at_boot() {
  local unit=$ROOT/etc/systemd/system/opstella-undo.service text="[Unit]
Description=opstella: put back what a phase changed that did not end
ConditionPathExistsGlob=$UNDO/*/undo.sh
After=network.target
[Service]
ExecStart=/bin/sh -c 'for program in $UNDO/*/undo.sh; do /bin/bash \$\$program; done'
[Install]
WantedBy=multi-user.target
"
  if [[ -f $unit && $(<"$unit") == "${text%$'\n'}" ]] && systemctl is-enabled --quiet opstella-undo.service; then return; fi
  printf '%s' "$text" >"$unit.part"
  mv -fT "$unit.part" "$unit"
  systemctl daemon-reload
  systemctl enable --quiet opstella-undo.service
}

# undo_program: every function of this run, and the call. No value of the payload is in it.
undo_program() {
  printf 'umask 022\nexport LC_ALL=C.UTF-8 PATH=%s\n' "$PATH"
  declare -p PHASE ROOT STATE RUNTIME BACKUPS UNDO DID STAGE JOURNAL
  declare -f
  cat <<'PROGRAM'
trap '' PIPE TERM INT HUP
undo_alone "$@"
PROGRAM
}

# undo_alone [locked]: as a program of its own, once the run that wrote the journal has ended.
undo_alone() {
  STAGE=
  if [[ ${1:-} != locked ]]; then
    folder "$RUNTIME" 0700
    exec {LOCK}>"$RUNTIME/lock"
    flock "$LOCK"
  fi
  [[ -e $JOURNAL/undo.sh ]] || exit 0
  take_back
  local status=$?
  [[ -z $STAGE ]] || rm -rf -- "$STAGE"
  exit "$status"
}

# take_back: false when the machine is not as it was. Never stops at a step that fails.
take_back() {
  local line failed=0 files=false left=''
  if [[ -e $JOURNAL/final ]]; then
    line=$(<"$JOURNAL/final")
    [[ -z $line ]] || say "not put back: $line"
    journal_drop
    return 0
  fi
  if files_back; then files=true; else failed=1; fi
  if [[ -e $JOURNAL/steps ]]; then
    while IFS= read -r line; do
      eval "$line" </dev/null >&2 && continue
      failed=1
      left+=$line$'\n'
      warning "putting back: \`${line% }\` failed"
    done <"$JOURNAL/steps"
  fi
  marks_back "$failed"
  if ((failed)); then
    ! $files || journal_shorten "$left"
    say "not everything could be put back on this machine; the files are as before the run. What to do: repair what the lines above name; the next run here, or a reboot, tries again"
    return 1
  fi
  journal_drop
  say "put back: this machine is as it was before the run (installed packages stay)"
}

# files_back: all but the marks of what is in use.
files_back() {
  local path failed=0
  while IFS= read -r -d '' path; do
    path=${path#"$JOURNAL/files"}
    [[ $path != "$STATE"/in-use/* ]] || continue
    file_back "$path" || failed=1
  done < <(find "$JOURNAL/files" ! -type d -print0 2>/dev/null)
  if [[ -e $JOURNAL/absent ]]; then
    while IFS= read -r path; do
      rm -f -- "$path" "${path%/*}/.${path##*/}.opstella" "$path.opstella-check" || failed=1
    done <"$JOURNAL/absent"
  fi
  if [[ -e $JOURNAL/folders ]]; then
    while IFS= read -r path; do
      [[ ! -d $path ]] || rmdir --ignore-fail-on-non-empty -- "$path" || failed=1
    done < <(sort -ru "$JOURNAL/folders")
  fi
  while IFS= read -r -d '' path; do
    cat "$path" >"${path#"$JOURNAL/values"}" || failed=1
  done < <(find "$JOURNAL/values" -type f -print0 2>/dev/null)
  return "$failed"
}

file_back() {
  local path=$1 fresh=${1%/*}/.${1##*/}.opstella
  folder "${path%/*}"
  rm -f -- "$path.opstella-check"
  if mountpoint -q "$path"; then
    rm -f -- "$fresh"
    cat "$JOURNAL/files$path" >"$path"
  elif [[ -f $path && ! -L $path && ! -L $JOURNAL/files$path ]] && cmp -s "$path" "$JOURNAL/files$path" && [[ $(stat -c '%a %U:%G' "$path") == "$(stat -c '%a %U:%G' "$JOURNAL/files$path")" ]]; then
    rm -f -- "$fresh"
  else
    rm -f -- "$fresh"
    # A link where that can be, for releases are large; one to a link would be the same file at a second try.
    { [[ ! -L $JOURNAL/files$path ]] && cp -al -- "$JOURNAL/files$path" "$fresh" 2>/dev/null; } ||
      cp -a --reflink=auto -- "$JOURNAL/files$path" "$fresh" || return 1
    mv -fT -- "$fresh" "$path"
  fi
}

# marks_back FAILED: a mark is believed only when the steps before it went well.
marks_back() {
  local mark
  while IFS= read -r -d '' mark; do
    mark=${mark#"$JOURNAL/files"}
    if (($1)); then rm -f -- "$mark"; else file_back "$mark"; fi
  done < <(find "$JOURNAL/files$STATE/in-use" -type f -print0 2>/dev/null)
}

# service_back UNIT ACTIVE ENABLED HOW: as `before_service` found it.
service_back() {
  local unit=$1 active=$2 enabled=$3 how=$4 failed=0
  systemctl daemon-reload
  case $enabled in
    enabled) systemctl is-enabled --quiet "$unit" 2>/dev/null || systemctl enable --quiet "$unit" || failed=1 ;;
    disabled) ! systemctl is-enabled --quiet "$unit" 2>/dev/null || systemctl disable --quiet "$unit" || failed=1 ;;
  esac
  systemctl reset-failed "$unit" 2>/dev/null
  if [[ $active == inactive ]]; then
    ! systemctl is-active --quiet "$unit" || systemctl stop "$unit" || failed=1
  elif [[ $how == reload ]] && systemctl is-active --quiet "$unit"; then
    systemctl reload "$unit" || failed=1
  else
    systemctl restart --no-block "$unit"
    sleep 0.3
    wait_until "${5:-60}" "$unit to be active again" service_settled "$unit"
    if ! systemctl is-active --quiet "$unit"; then
      journal_tail "$unit" 10
      failed=1
    fi
  fi
  return "$failed"
}

# journal_shorten STEPS: the files are back; a second try has the marks and STEPS before it. By then somebody may have repaired
# a file or a service by hand, which the rest of the journal would undo.
journal_shorten() {
  rm -rf -- "$JOURNAL/absent" "$JOURNAL/folders" "$JOURNAL/values"
  find "$JOURNAL/files" ! -type d ! -path "$JOURNAL/files$STATE/in-use/*" -delete 2>/dev/null
  if printf '%s' "$1" >"$JOURNAL/steps.part"; then mv -fT -- "$JOURNAL/steps.part" "$JOURNAL/steps"; fi
}

# journal_drop: in one rename, so that it is there as a whole or not at all.
journal_drop() {
  [[ -e $JOURNAL ]] || return 0
  rm -rf -- "$UNDO/.ended"
  mv -T -- "$JOURNAL" "$UNDO/.ended" || return 1
  sync -- "$UNDO"
  rm -rf -- "$UNDO/.ended"
  return 0
}

# ---- what is in use ---------------------------------------------------------------------------

# in_use NAME TEXT: TEXT was put to use, not only written. The mark tells a run that died between writing a
# file and restarting its service, which comparing files cannot. From `not_in_use` until `now_in_use`, nobody knows.
in_use() { [[ -e $STATE/in-use/$1 && $(<"$STATE/in-use/$1") == "$(text_sum "$2")" ]]; }

not_in_use() {
  [[ -e $STATE/in-use/$1 ]] || return 0
  before_change "$STATE/in-use/$1"
  rm -f -- "$STATE/in-use/$1"
}

now_in_use() {
  ! in_use "$1" "$2" || return 0
  before_change "$STATE/in-use/$1"
  folder "$STATE/in-use" 0700
  text_sum "$2" >"$STATE/in-use/$1"
}

text_sum() { printf '%s' "$1" | sha256sum | cut -d ' ' -f 1; }

# ---- downloads --------------------------------------------------------------------------------

sha256_of() {
  local sum
  sum=$(sha256sum -- "$1")
  printf '%s' "${sum%% *}"
}

# fetch URL PATH: resumes nothing, leaves either the whole file or none.
fetch() {
  local url=$1 path=$2 message
  folder "${path%/*}"
  stage
  proxy_use "$url"
  if ! curl --fail --silent --show-error --location --retry 3 --retry-connrefused --connect-timeout 15 ${DIRECT[@]+"${DIRECT[@]}"} \
    --speed-limit 1024 --speed-time 60 --proto '=http,https,file' --output "$path.part" -- "$url" 2>"$STAGE/curl"; then
    message=$(said "$STAGE/curl" '^curl: \([0-9]+\)')
    rm -f -- "$path.part"
    die "cannot download ${url%%\?*}: $message" "$(curl_remedy "$message")"
  fi
  mv -f -- "$path.part" "$path"
}

# curl_remedy MESSAGE: by the status that curl names in its message (curl(1), EXIT CODES).
curl_remedy() {
  local pattern='curl: \(([0-9]+)\)'
  [[ $1 =~ $pattern ]] || pattern=
  case ${pattern:+${BASH_REMATCH[1]}} in
    5) echo "the name of the proxy is unknown to this host: correct opstella:proxy or the host's name servers" ;;
    6) echo "this host cannot resolve the name: check its name servers (opstella:dns.servers), or set opstella:proxy where names are resolved by a proxy" ;;
    7 | 28 | 52) echo "check that this host reaches the address: route, firewall, opstella:proxy" ;;
    22) echo "check that the file is there and may be read; behind a proxy, that the proxy lets this host have it" ;;
    23) echo "check the free space on this host: df -h" ;;
    35 | 51 | 53 | 54 | 58 | 59 | 60 | 77 | 80 | 83 | 90 | 91) echo "add the certificate authority that signed the server's certificate (of a proxy that inspects TLS: the proxy's own) to opstella:extraCaCertificates" ;;
    37) echo "check that the file is on this host" ;;
    56 | 97) echo "check that the proxy of opstella:proxy lets this host connect there" ;;
    *) echo "check that this host reaches the server (address, firewall, opstella:proxy) and that the file is there" ;;
  esac
}

# proxy_use [URL]: exports the proxy for what is fetched from here on: that of this phase's values, else the one that the
# preparation left. DIRECT holds curl's arguments for a URL that is not to go through it.
proxy_use() {
  local host line name value
  DIRECT=()
  if [[ -v V[proxy_http] ]]; then
    PROXY=([http_proxy]=${V[proxy_http]} [https_proxy]=${V[proxy_https]:-} [no_proxy]=${V[proxy_no]:-})
  elif [[ -r $STATE/proxy ]]; then
    while IFS='=' read -r name value; do PROXY[$name]=$value; done <"$STATE/proxy"
  fi
  PROXY[no_proxy]=${PROXY[no_proxy]//$'\n'/,}
  for name in http_proxy https_proxy; do
    [[ -z ${PROXY[$name]} ]] || export "$name=${PROXY[$name]}" "no_proxy=${PROXY[no_proxy]}"
  done
  [[ -n ${1:-} ]] || return 0
  host=${1#*://}
  host=${host%%[/?#]*}
  host=${host##*@}
  ! proxy_bypassed "${host%:*}" || DIRECT=(--noproxy '*')
}

# proxy_bypassed HOST: whether an entry of no_proxy names it, one of its domains, or a network that holds it. curl before
# 7.86 and apt know no networks.
proxy_bypassed() {
  local entry entries
  IFS=, read -ra entries <<<"${PROXY[no_proxy]}"
  for entry in ${entries[@]+"${entries[@]}"}; do
    if [[ $entry == */* ]]; then
      ! { [[ $1 =~ ^[0-9]+(\.[0-9]+){3}$ && $entry =~ ^[0-9.]+/[0-9]+$ ]] && in_network "$1" "$entry"; } || return 0
    else
      [[ $1 != "${entry#.}" && $1 != *".${entry#.}" ]] || return 0
    fi
  done
  return 1
}

# proxy_bypassed_in FILE...: hosts of the URLs in these files that are not to be asked through the proxy.
proxy_bypassed_in() {
  local host
  grep -Ehos '^[^#]*' "$@" | grep -Eo '://[A-Za-z0-9.-]+' | sort -u | while IFS= read -r host; do
    ! proxy_bypassed "${host#://}" || printf '%s\n' "${host#://}"
  done || true
}

# in_network ADDRESS NETWORK: whether the IPv4 address is one of the network's, which is written as 10.0.0.0/8.
in_network() {
  local bits=${2#*/}
  ((($(ipv4_number "$1") ^ $(ipv4_number "${2%/*}")) >> (32 - bits) == 0))
}

ipv4_number() {
  local first second third fourth
  IFS=. read -r first second third fourth <<<"$1"
  printf '%s' $(((first << 24) + (second << 16) + (third << 8) + fourth))
}

# ssh_connection: the SSH connection of this run: client, its port, our address, our port; nothing when there is none. sudo takes
# that from our environment, so it is sought in those above us.
ssh_connection() {
  local pid=$$ entry
  while [[ -n $pid ]] && ((pid > 1)); do
    while IFS= read -r -d '' entry; do
      [[ $entry == SSH_CONNECTION=* ]] || continue
      entry=${entry#*=}
      printf '%s' "${entry//::ffff:/}"
      return
    done <"/proc/$pid/environ"
    pid=$(awk '$1 == "PPid:" { print $2 }' "/proc/$pid/status")
  done
}

# ssh_client: where this run was dialled from.
ssh_client() {
  local connection
  connection=$(ssh_connection)
  printf '%s' "${connection%% *}"
}

# fetch_verified URL PATH SHA256: sets DID; a file that is already right is not loaded again.
fetch_verified() {
  local url=$1 path=$2 expected=${3,,} found
  [[ $expected =~ ^[0-9a-f]{64}$ ]] || die "the SHA-256 for ${path##*/} is '$3'" "give 64 hexadecimal digits" 2
  if [[ -f $path && $(sha256_of "$path") == "$expected" ]]; then
    unchanged "$path"
    return
  fi
  fetch "$url" "$path"
  found=$(sha256_of "$path")
  if [[ $found != "$expected" ]]; then
    rm -f -- "$path"
    die "${path##*/} from ${url%%\?*} has a wrong SHA-256: expected $expected, got $found; the file was removed" "put the right file on the media server, or correct the sum in the settings"
  fi
  changed "$path"
}

# ---- packages ---------------------------------------------------------------------------------

# How long another program may hold a lock of the package manager: unattended upgrades at a first boot take minutes.
LOCK_SECONDS=480

# package_version NAME: nothing when it is not installed, which both programs answer with status 1.
package_version() {
  local found status=0 format="\${db:Status-Status} \${Version}"
  case $(os_family) in
    debian)
      found=$(dpkg-query -W -f="$format" "$1" 2>/dev/null) || status=$?
      ((status <= 1)) || die "dpkg-query cannot read dpkg's database (status $status)" "look at it on this host: dpkg --audit"
      ((status)) || [[ $found != installed\ * ]] || printf '%s' "${found#installed }" ;;
    rhel)
      found=$(rpm -q --qf '%{VERSION}-%{RELEASE}\n' "$1" 2>&1) || status=$?
      ((status == 0)) || [[ $found == "package $1 is not installed" ]] || die "rpm cannot read its database: ${found//$'\n'/ / }" "look at it on this host: rpm --verifydb"
      ((status)) || printf '%s' "${found##*$'\n'}" ;;
  esac
}

package_installed() {
  case $(os_family) in
    debian) [[ -n $(package_version "$1") ]] ;;
    rhel) rpm -q --quiet --whatprovides "$1" >/dev/null 2>&1 ;;
  esac
}

# apt ARGUMENT...: keeps files we have already written.
apt() {
  packages_by apt_once "$@"
}

# A run that died inside dpkg leaves packages half configured; apt refuses to work before this. Not so while another
# program is at work: then both end for its lock.
apt_once() {
  local options=(-qq -y -o DPkg::Lock::Timeout=5 -o Acquire::Retries=3 -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-confdef -o Dpkg::Use-Pty=0)
  if [[ -n $(dpkg --audit) ]]; then dpkg --configure -a || return; fi
  apt-get "${options[@]}" "$@"
}

# dnf ARGUMENT...: by default it waits for another one without an end.
dnf() { packages_by dnf_once "$@"; }

dnf_once() {
  local hosts=
  # The library behind it does not know networks in no_proxy.
  [[ -z ${PROXY[no_proxy]} ]] || hosts=$(proxy_bypassed_in /etc/yum.repos.d/*.repo)
  no_proxy=${PROXY[no_proxy]}${hosts:+,${hosts//$'\n'/,}} command dnf -q -y --setopt=exit_on_lock=1 "$@"
}

# packages_by COMMAND...: its status; asked again while another program holds a lock, as its exit status or its words
# say. What it said stays in $STAGE/packages.
packages_by() {
  local deadline=$((SECONDS + LOCK_SECONDS)) status waited=false
  stage
  proxy_use
  while true; do
    status=0
    "$@" >"$STAGE/packages" 2>&1 </dev/null || status=$?
    ((status)) || break
    packages_locked "$status" || break
    if ((SECONDS >= deadline)); then
      die "another program has held a lock of the package manager for $LOCK_SECONDS s: $(said "$STAGE/packages" 'lock')" \
        "wait until it is done (often unattended upgrades, packagekit or cloud-init), or find it: fuser -v /var/lib/dpkg/lock* /var/lib/apt/lists/lock /var/cache/apt/archives/lock /var/lib/rpm/.rpm.lock /var/cache/dnf/*.pid"
    fi
    $waited || say "waiting for another program: $(said "$STAGE/packages" 'lock')"
    waited=true
    sleep 2
  done
  redact <"$STAGE/packages" >&2
  return "$status"
}

# packages_locked STATUS: dnf(8) has a status of its own for its locks, apt and rpm have words only.
packages_locked() {
  (($1 == 200)) || grep -qE 'Could not get lock|Unable to lock (the administration )?directory|lock was locked by another process|Unable to acquire the dpkg frontend lock|create transaction lock' "$STAGE/packages"
}

# packages_failed WHAT: what the package manager said last, with a remedy that follows from it.
packages_failed() {
  local message
  message=$(said "$STAGE/packages" '^(E|Err|Error|error|dpkg: error)[: ]|Curl error|Errors? during download|No match for argument|^ +Problem|nothing provides|conflicts with')
  [[ ! -s $STAGE/lists ]] || message+="; before, package lists could not be fetched: $(said "$STAGE/lists" 'Failed to fetch')"
  die "$1: $message" "$(packages_remedy)"
}

packages_remedy() {
  local file=("$STAGE/packages")
  [[ ! -s $STAGE/lists ]] || file+=("$STAGE/lists")
  if grep -qhiE 'certificate verif|certificate problem|self.signed certificate|unable to get local issuer|not trusted' "${file[@]}"; then
    echo "add the certificate authority of that package source, or of the proxy that inspects TLS, to opstella:extraCaCertificates"
  elif grep -qE 'is not valid yet|Release file .* expired' "${file[@]}"; then
    echo "set the clock of this host, or renew that package source"
  elif grep -qE 'NO_PUBKEY|is not signed|GPG check FAILED|Public key for|repomd.xml signature' "${file[@]}"; then
    echo "install the signing key of that package source on this host"
  elif grep -qhiE 'no space left|enough free space|At least .* more space needed' "${file[@]}"; then
    echo "free some space on this host: df -h"
  elif grep -qE 'does not have a Release file|no longer has a Release file|404 +Not Found|Status code: 404|File not found|Cannot open file|Couldn.t open file' "${file[@]}"; then
    echo "that package source does not exist (any more): correct or remove it on this host (/etc/apt/sources.list.d, /etc/yum.repos.d)"
  elif grep -qE 'is not known on line|Malformed entry|could not be read|Parsing file' "${file[@]}"; then
    echo "correct that package source on this host (/etc/apt/sources.list.d, /etc/yum.repos.d)"
  elif grep -qhiE 'could not resolve|failure resolving|could not connect|connection (refused|timed out|failed)|unable to connect|no route to host|Curl error \((5|6|7|28)\)|from proxy|Invalid response from proxy|Cannot download repomd|Cannot prepare internal mirrorlist' "${file[@]}"; then
    echo "check that this host reaches its package sources: name servers, route, firewall, opstella:proxy"
  elif grep -qE 'Unable to locate package|has no installation candidate|was not found|No match for argument|Unable to find a match|Unknown repo|nothing provides' "${file[@]}"; then
    echo "add a package source that offers it to this host, and check: apt-cache policy NAME, or dnf list NAME"
  elif grep -qE 'unmet dependencies|held broken packages|conflicting requests|conflicts with' "${file[@]}"; then
    echo "packages of this host contradict each other: install it by hand once and solve what is named there"
  else
    echo "read the package manager's own lines above"
  fi
}

APT_UPDATED=false
# A source that does not answer for a while leaves apt-get's status at 0, and its old list in use.
apt_update() {
  ! $APT_UPDATED || return 0
  apt update || packages_failed "the package lists of this host cannot be updated (apt-get update)"
  if grep -qE 'Failed to fetch' "$STAGE/packages"; then
    cp "$STAGE/packages" "$STAGE/lists"
    warning "some package lists could not be fetched, old ones are used: $(said "$STAGE/lists" 'Failed to fetch')"
  fi
  APT_UPDATED=true
}

# package_install NAME...: installs those that are missing, upgrades none.
package_install() {
  local name missing=()
  for name in "$@"; do [[ -z $name ]] || package_installed "$name" || missing+=("$name"); done
  if ((${#missing[@]} == 0)); then
    unchanged "packages $*"
    return
  fi
  case $(os_family) in
    debian)
      apt_update
      apt install --no-install-recommends "${missing[@]}" || packages_failed "cannot install ${missing[*]}" ;;
    rhel) dnf install --setopt=install_weak_deps=False "${missing[@]}" || packages_failed "cannot install ${missing[*]}" ;;
  esac
  changed "packages ${missing[*]}"
}

# Packages of SELinux's policy for RKE2, by its vendor.
# shellcheck disable=SC2034 # read by phases
SELINUX_PACKAGES=https://rpm.rancher.io

selinux_enforcing() { type -P getenforce >/dev/null && [[ $(getenforce) == Enforcing ]]; }

# selinux_allow BOOLEAN WHAT: where SELinux is enforced, lets WHAT happen, for good.
selinux_allow() {
  local found
  selinux_enforcing || return 0
  found=$(getsebool "$1" 2>/dev/null) || {
    warning "SELinux's policy here knows no boolean $1; if it keeps $2 from happening: ausearch -m avc -ts recent"
    return 0
  }
  if [[ $found == *' on' ]]; then
    unchanged "SELinux lets $2"
  else
    setsebool -P "$1" 1
    changed "SELinux lets $2"
  fi
}

# ---- services ---------------------------------------------------------------------------------

service_enable() {
  if systemctl is-enabled --quiet "$1" 2>/dev/null; then
    unchanged "$1 starts at boot"
  else
    before_service "$1"
    systemctl enable --quiet "$1"
    changed "$1 starts at boot"
  fi
}

# wait_until SECONDS WHAT COMMAND...: false when the time is over.
wait_until() {
  local seconds=$1 what=$2 deadline
  shift 2
  deadline=$((SECONDS + seconds))
  until "$@"; do
    if ((SECONDS >= deadline)); then
      say "waited $seconds s for: $what"
      return 1
    fi
    sleep 1
  done
}

# journal_tail UNIT [LINES]: what the service said last, with what looks like a secret blanked.
journal_tail() {
  say "last lines of $1:"
  journalctl --no-pager --quiet --output=cat --unit "$1" --lines "${2:-30}" 2>/dev/null | redact >&2 || true
}

redact() {
  sed -E -e 's/K10[0-9a-f]{16,}::[^[:space:]"]+/[secret]/g' \
    -e 's/((token|password|secret|passwd|authorization|private[_-]?key)[^[:space:]=:]*["'\'']?[[:space:]]*[=:][[:space:]]*)("[^"]*"|(Bearer |Basic )?[^[:space:],}]+)/\1[secret]/Ig' \
    -e 's#://[^/@[:space:]]+@#://[secret]@#g'
}

# service_running UNIT SECONDS REMEDY: started when it is not, and up within the bound.
service_running() {
  local unit=$1 seconds=$2 remedy=$3
  if systemctl is-active --quiet "$unit"; then
    unchanged "$unit runs"
    return
  fi
  before_service "$unit"
  systemctl reset-failed "$unit" 2>/dev/null || true
  systemctl start --no-block "$unit"
  service_wait "$unit" "$seconds" "$remedy"
  changed "$unit started"
}

service_restart() {
  before_service "$1"
  systemctl reset-failed "$1" 2>/dev/null || true
  systemctl restart --no-block "$1"
  service_wait "$1" "$2" "$3"
  changed "$1 restarted"
}

service_wait() {
  local unit=$1 seconds=$2 remedy=$3
  sleep 0.3
  if ! wait_until "$seconds" "$unit to be active" service_settled "$unit" || ! systemctl is-active --quiet "$unit"; then
    journal_tail "$unit"
    die "the service $unit is not active" "$remedy"
  fi
}

# Without a job in the queue, a unit that is inactive stays so: one that it depends on has failed.
service_settled() { [[ $(systemctl show -P Job "$1") =~ ^0?$ && $(systemctl show -P ActiveState "$1") =~ ^(active|failed|inactive)$ ]]; }

# ---- versions ---------------------------------------------------------------------------------

# version_numbers v1.36.3+rke2r1 -> "1 36 3 1 9999"; the last number makes a release candidate sort before its release.
version_numbers() {
  local pattern='^v?([0-9]+)\.([0-9]+)\.([0-9]+)(-rc([0-9]+))?([+~-]rke2r([0-9]+))?'
  [[ $1 =~ $pattern ]] || return 1
  printf '%d %d %d %d %d\n' "$((10#${BASH_REMATCH[1]}))" "$((10#${BASH_REMATCH[2]}))" "$((10#${BASH_REMATCH[3]}))" \
    "$((10#${BASH_REMATCH[7]:-0}))" "$((10#${BASH_REMATCH[5]:-9999}))"
}

# version_compare A B prints -1, 0 or 1.
version_compare() {
  local -a a b
  local i
  read -ra a < <(version_numbers "$1") || true
  read -ra b < <(version_numbers "$2") || true
  ((${#a[@]} == 5 && ${#b[@]} == 5)) || die "cannot compare the versions '$1' and '$2'" "write versions like v1.36.3+rke2r1" 2
  for i in 0 1 2 3 4; do
    ((a[i] == b[i])) && continue
    ((a[i] < b[i])) && echo -1 || echo 1
    return
  done
  echo 0
}

# version_step_check PRODUCT FROM TO: a step back, or over a minor release, is refused.
version_step_check() {
  local product=$1 from=$2 to=$3
  local -a a b
  (($(version_compare "$from" "$to") <= 0)) || die "$product $from is installed and $to is wanted: a downgrade corrupts its data" "write $from or newer in the settings, or rebuild this host from a snapshot taken under $to"
  read -ra a < <(version_numbers "$from")
  read -ra b < <(version_numbers "$to")
  ((a[0] == b[0] && b[1] - a[1] <= 1)) || die "$product $from is installed and $to is wanted: that skips a minor release, which Kubernetes does not support" "go by way of ${a[0]}.$((a[1] + 1)) first"
}

# ---- trust ------------------------------------------------------------------------------------

# install_certificates FOLDER SUFFIX PEM: one file for each certificate, as update-ca-certificates and GitLab
# want it; those of an earlier bundle are removed. Sets DID for the folder as a whole.
install_certificates() {
  local folder=$1 suffix=$2 pem=$3 certificate='' line wanted=' ' any=false file
  while IFS= read -r line; do
    line=${line%$'\r'}
    [[ $line == '-----BEGIN CERTIFICATE-----' || -n $certificate ]] || continue
    certificate+=$line$'\n'
    [[ $line == '-----END CERTIFICATE-----' ]] || continue
    install_certificate "$folder" "$suffix" "$certificate"
    wanted+="$TRUSTED "
    [[ $DID == unchanged ]] || any=true
    certificate=
  done <<<"$pem"
  [[ -z $certificate ]] || die "the CA bundle ends inside a certificate" "give whole PEM blocks"
  [[ -z ${pem//[[:space:]]/} || $wanted != ' ' ]] || die "the CA bundle holds no certificate" "give PEM certificates"
  for file in "$ROOT$folder"/opstella-*."$suffix"; do
    [[ -e $file && $wanted != *" ${file##*/} "* ]] || continue
    remove_file "${file#"$ROOT"}"
    any=true
  done
  if $any; then DID=changed; else DID=unchanged; fi
}

install_certificate() {
  local folder=$1 suffix=$2 certificate=$3 print
  print=$(openssl x509 -noout -fingerprint -sha256 <<<"$certificate" 2>/dev/null) || die "the CA bundle has a block that is not a certificate" "give PEM certificates"
  print=${print#*=}
  print=${print//:/}
  TRUSTED=opstella-${print:0:16}.$suffix
  install_text "$folder/$TRUSTED" 0644 "$certificate"
}

trust_store_install() {
  local folder suffix refresh
  case $(os_family) in
    debian) folder=/usr/local/share/ca-certificates suffix=crt refresh=(update-ca-certificates) ;;
    rhel) folder=/etc/pki/ca-trust/source/anchors suffix=pem refresh=(update-ca-trust extract) ;;
  esac
  install_certificates "$folder" "$suffix" "$1"
  if [[ $DID == unchanged ]] && in_use trust-store "$1"; then
    unchanged "trust store"
    return
  fi
  undo_by "${refresh[@]}"
  not_in_use trust-store
  "${refresh[@]}" >&2
  now_in_use trust-store "$1"
  changed "trust store"
}

# ---- firewall ---------------------------------------------------------------------------------

# shellcheck disable=SC2034 # the phases `prepare` and `confirm` say it
LET_OPERATOR_IN="on the bastion, add the network that you come from to opstella:firewall.operatorNetworks; behind it, opstella:bastion.address must be the address that the machines see"

# firewall_lock: the roll-back takes the same lock, so that a confirmation and a roll-back never cross.
firewall_lock() {
  folder /run/opstella/firewall 0700
  exec {FIREWALL}>/run/opstella/firewall/lock
  flock -w 30 "$FIREWALL" || die "a roll-back of the firewall holds /run/opstella/firewall/lock" "run again"
}

firewall_unlock() { [[ -z ${FIREWALL:-} ]] || exec {FIREWALL}>&-; }

# firewall_text FILE: one transaction; the old table goes and the new one comes, with no moment between.
firewall_text() {
  printf 'add table inet opstella\ndelete table inet opstella\n'
  cat "$1"
}

# firewall_listing: the table as the kernel holds it, without its counters, and without who dialled SSH lately.
firewall_listing() {
  nft -s list table inet opstella | awk '/^\tset ssh_rate6? \{/ { inside = 1 } !inside { print } /^\t\}/ { inside = 0 }'
}

# firewall_try CANDIDATE SECONDS: puts it in force until it is confirmed. The timer is systemd's, so it
# outlives this connection, and it runs before the rules do: whatever happens, the host opens again.
firewall_try() {
  local candidate=$1 seconds=$2 unit=opstella-firewall-rollback
  systemctl stop $unit.timer 2>/dev/null || true
  systemctl reset-failed $unit.service $unit.timer 2>/dev/null || true
  firewall_rollback_program >/run/opstella/firewall/rollback.sh
  systemd-run --quiet --collect --unit=$unit --on-active="$seconds" --timer-property=AccuracySec=1s \
    --description='opstella: undo the firewall unless it is confirmed' /bin/bash /run/opstella/firewall/rollback.sh
  : >/run/opstella/firewall/pending
  firewall_text "$candidate" | nft -f -
  changed "firewall in force; it rolls back in $seconds s unless it is confirmed"
}

# firewall_admits CONNECTION: whether the rules in force let in the packets of this SSH connection without knowing it, as they
# would those of a new one. For a moment they are not tracked, so no rule for what is established holds for them: when the other
# end acknowledges a line of ours all the same, its packet came by the rule that lets SSH in. Whoever asks by `||` has the shell
# go on after a failure, so each command that the proof stands on says itself what its failure means.
firewall_admits() {
  local client port address own before now try family=ip done=1
  read -r client port address own <<<"$1"
  client=${client%%%*} address=${address%%%*} # one of a link has its interface behind it, which nft and ss do not read
  [[ $client != *:* ]] || family=ip6
  undo_by firewall_tracks_all
  firewall_tracks_all
  nft -f - <<<"table inet opstella_untracked {
    chain in {
      type filter hook prerouting priority raw;
      $family saddr $client tcp sport $port $family daddr $address tcp dport $own notrack
    }
    chain out {
      type filter hook output priority raw;
      $family daddr $client tcp dport $port $family saddr $address tcp sport $own notrack
    }
  }" || firewall_unproven "nft does not leave its packets untracked"
  sleep 1 # what was under way came by the old rules
  before=$(acknowledged "$client" "$port") || firewall_unproven "ss does not show it"
  say "the firewall's rules are tried on this connection"
  for ((try = 0; try < 20; try++)); do
    now=$(acknowledged "$client" "$port") || break # it has ended
    if ((now > before)); then
      done=0
      break
    fi
    sleep 0.5
  done
  firewall_tracks_all
  return "$done"
}

firewall_unproven() {
  die "whether the new rules let in this connection cannot be told: $1; those that were confirmed before are in force again" \
    "replace this host's preparation and its confirmation both (docs/operations.md, Machines changed by hand): what comes in time needs no such proof"
}

firewall_tracks_all() { nft -f - <<<$'add table inet opstella_untracked\ndelete table inet opstella_untracked'; }

# acknowledged CLIENT PORT: prints how many bytes the client of an SSH connection has acknowledged; fails if ss lists no such connection.
acknowledged() {
  local client=$1
  [[ $client != *:* ]] || client="[$client]"
  ss -H -n -t -i dst "$client" and dport = ":$2" | awk 'match($0, /bytes_acked:[0-9]+/) { bytes = substr($0, RSTART + 12, RLENGTH - 12) } END { if (!NR) exit 1; print bytes + 0 }'
}

firewall_rollback_program() {
  cat <<'PROGRAM'
set -eu
cd /run/opstella/firewall
exec 9>lock
flock 9
[ -e pending ] || exit 0
printf 'add table inet opstella\ndelete table inet opstella\n' >undo.nft
[ ! -e /etc/opstella/firewall.nft ] || cat /etc/opstella/firewall.nft >>undo.nft
cat undo.nft | nft -f - || nft delete table inet opstella
rm -f pending
echo 'opstella: the firewall was not confirmed in time and was rolled back'
PROGRAM
}

# ---- packet filters of others -----------------------------------------------------------------
# A packet must be accepted by every base chain of its hook. What others filter is asked of the kernel: whoever loaded it, and
# by which program, its chains stand in nftables (iptables-nft's too) or in the legacy tables of iptables.

# foreign_filters ROLE: a line for each base chain that is neither the program's nor a network plugin's, and that drops or rejects
# what no rule of its own accepts: by its policy, or by a rule without a condition. Of a machine that forwards nothing, `forward`
# does not matter; of families, IPv6 alone does not. Fields, by |: table, chain, hook, how, whose, a command that removes it.
foreign_filters() {
  local hooks=' input output prerouting postrouting ingress '
  [[ $1 != master && $1 != worker ]] || hooks+='forward '
  filters_listing | filters_that_hold "$hooks"
}

# filters_listing: everything that the kernel filters by, as text of `nft list ruleset` and of `iptables-save`.
filters_listing() {
  local tool
  if type -P nft >/dev/null; then
    nft --stateless list ruleset 2>/dev/null
  elif tool=$(type -P iptables-nft-save || type -P iptables-save); then
    printf '\n#by iptables\n'
    "$tool" 2>/dev/null
  fi
  if [[ -n $(cat /proc/net/ip_tables_names 2>/dev/null) ]]; then
    printf '\n#by iptables-legacy\n'
    if tool=$(type -P iptables-legacy-save || type -P iptables-save); then "$tool" 2>/dev/null; else printf '#unknown\n'; fi
  fi
}

# filters_that_hold HOOKS: judges a listing. A chain's rules count until the first that ends it for every packet; jumps without a
# condition are followed, but into chains of Calico, Cilium and kube-proxy, which know what pods need.
# In its program a verdict is 1 (drops), 2 (accepts) or 0 (goes back to whoever called); the first rules read iptables-save.
filters_that_hold() {
  awk -v hooks="$1" '
    function plain(text) {
      gsub(/[ \t]+/, " ", text)
      gsub(/xt match "comment"/, "", text)
      gsub(/xt target "(REJECT|DROP)"/, "drop", text)
      gsub(/ ?"[^"]*"/, "", text)
      gsub(/\/\*[^*]*\*\//, "", text)
      gsub(/counter packets [0-9]+ bytes [0-9]+/, "", text)
      gsub(/(^| )(counter|comment)( name)?/, " ", text)
      gsub(/(^| )log(( prefix)|( level [a-z]+)|( group [0-9]+)|( snaplen [0-9]+)|( queue-threshold [0-9]+)|( flags (all|skuid|ether|ip options|tcp [a-z,]+)))*/, " ", text)
      gsub(/ +/, " ", text)
      gsub(/^ | $/, "", text)
      return text
    }
    function rule(chain, text) { rules[chain, ++count[chain]] = text }
    function verdict(table, name, depth,   i, words, parts, found) {
      if (depth > 16 || name ~ /^(cali-|KUBE-|CILIUM_|OLD_CILIUM_)/) return 0
      for (i = 1; i <= count[table, name]; i++) {
        words = rules[table, name, i]
        split(words, parts, " ")
        if (parts[1] == "drop" || parts[1] == "reject") return 1
        if (parts[1] == "accept") return 2
        if (parts[1] == "return") return 0
        if (parts[1] == "jump" || parts[1] == "goto") {
          found = verdict(table, parts[2], depth + 1)
          if (found || parts[1] == "goto") return found
        }
      }
      return 0
    }
    function whose(table,   key, names) {
      for (key in count) if (index(key, table SUBSEP) == 1) names = names " " substr(key, length(table) + 2)
      for (key in base) if (index(key, table SUBSEP) == 1) names = names " " substr(key, length(table) + 2)
      if (names ~ / ufw6?-/) return "ufw"
      if (table ~ /firewalld/ || names ~ / (IN_public|INPUT_ZONES)/) return "firewalld"
      if (names ~ / DOCKER/) return "docker"
      if (names ~ / LIBVIRT_/ || table ~ /libvirt/) return "libvirt"
      return ""
    }
    /^#by / { by = $2; table = ""; next }
    /^#unknown/ { print "ip (legacy)|?|input|unknown|?|" ; next }
    by != "" && /^\*/ { table = "ip " substr($1, 2) (by == "iptables-legacy" ? " (legacy)" : ""); next }
    by != "" && /^:/ {
      chain = substr($1, 2)
      if ($2 != "-") { hook[table, chain] = tolower(chain); policy[table, chain] = tolower($2); base[table, chain] = ++bases; order[bases] = table SUBSEP chain }
      next
    }
    by != "" && /^-A / {
      chain = $2
      text = $0
      gsub(/ -m comment/, "", text)
      gsub(/ --comment ("[^"]*"|[^ ]+)/, "", text)
      split(text, parts, " ")
      if (parts[3] == "-j" || parts[3] == "-g") {
        target = parts[4]
        if (target == "DROP" || target == "REJECT") target = "drop"
        else if (target == "ACCEPT" || target == "RETURN") target = tolower(target)
        else if (target ~ /^[A-Z]+$/ && target ~ /^(LOG|NFLOG|MARK|CONNMARK|TCPMSS|CT|NOTRACK|CHECKSUM|ULOG|TRACE|AUDIT|SECMARK|CONNSECMARK|TTL|DSCP)$/) target = "pass"
        else target = (parts[3] == "-g" ? "goto " : "jump ") target
        rule(table SUBSEP chain, target)
      }
      next
    }
    by != "" { next }
    /^table / { table = $2 " " $3; next }
    /^\tchain / { chain = $2; inside = 1; count[table, chain] += 0; next }
    /^\t}/ { inside = 0; next }
    inside && /^\t\ttype .* hook / {
      text = $0
      sub(/.* hook /, "", text)
      split(text, parts, " ")
      hook[table, chain] = parts[1]
      policy[table, chain] = text ~ /policy drop/ ? "drop" : "accept"
      base[table, chain] = ++bases
      order[bases] = table SUBSEP chain
      next
    }
    inside { text = $0; text = plain(text); if (text != "") rule(table SUBSEP chain, text) }
    END {
      for (i = 1; i <= bases; i++) {
        split(order[i], parts, SUBSEP)
        table = parts[1]; chain = parts[2]
        if (index(hooks, " " hook[table, chain] " ") == 0) continue
        if (table ~ /^(ip6|arp|bridge) / || table ~ /^inet opstella/ || table ~ /^[a-z]+ (calico|cali-|kube-proxy|cilium)/) continue
        found = verdict(table, chain, 0)
        if (found == 1) how = "rule"; else if (found == 0 && policy[table, chain] == "drop") how = "policy"; else continue
        print table "|" chain "|" hook[table, chain] "|" how "|" whose(table)
      }
    }'
}

# foreign_filter_problem LINE: one of foreign_filters as a sentence with its remedy.
foreign_filter_problem() {
  local table chain hook how owner remedy unit tool=iptables
  IFS='|' read -r table chain hook how owner <<<"$1"
  if [[ $how == unknown ]]; then
    printf '%s' "tables of the old iptables are loaded, and no program here can list them: install the package 'iptables' and run this again, or unload them: reboot without what loads them"
    return
  fi
  [[ $table != *legacy* ]] || tool=iptables-legacy
  if [[ -z $owner ]]; then
    for unit in netfilter-persistent iptables nftables; do
      if systemctl is-active --quiet "$unit" 2>/dev/null; then owner=$unit && break; fi
    done
  fi
  case $owner in
    ufw) remedy="ufw disable" ;;
    firewalld) remedy="systemctl disable --now firewalld" ;;
    docker) remedy="remove Docker, which a machine of the platform does not need, and reboot; or for now: $tool --policy $chain ACCEPT" ;;
    libvirt) remedy="remove libvirt, which a machine of the platform does not need, and reboot" ;;
    netfilter-persistent) remedy="netfilter-persistent flush && systemctl disable netfilter-persistent" ;;
    iptables) remedy="systemctl disable --now iptables" ;;
    *)
      if [[ $table == ip\ * && ${chain^^} == "$chain" ]]; then
        remedy="$tool --table $(cut -d' ' -f2 <<<"$table") --policy $chain ACCEPT && $tool --table $(cut -d' ' -f2 <<<"$table") --flush $chain"
      else
        remedy="nft delete table $table"
      fi
      if [[ $owner == nftables ]]; then
        remedy="systemctl disable nftables && $remedy"
      else
        remedy+=", and out of whatever loads it at boot (cloud-init's user data, a unit, /etc/network)"
      fi ;;
  esac
  printf "another packet filter${owner:+ ($owner)} drops what the plan lets through: table %s, chain %s (hook %s) %s; remove it: %s" \
    "$table" "$chain" "$hook" "$([[ $how == policy ]] && printf 'has the policy drop' || printf 'ends with a rule that drops or rejects everything')" "$remedy"
}

# ---- lists and JSON ---------------------------------------------------------------------------

# list NAME: the non-empty lines of a value, into the array LIST.
list() {
  local line
  LIST=()
  while IFS= read -r line; do [[ -z $line ]] || LIST+=("$line"); done <<<"${V[$1]}"
}

json_string() {
  local text=$1 out='' c i
  for ((i = 0; i < ${#text}; i++)); do
    c=${text:i:1}
    case $c in
      '"') out+='\"' ;;
      \\) out+="\\\\" ;;
      [[:cntrl:]]) printf -v c '\\u%04x' "'$c"; out+=$c ;;
      *) out+=$c ;;
    esac
  done
  printf '"%s"' "$out"
}

json_list() {
  local item separator=
  printf '['
  for item in "$@"; do
    printf '%s%s' "$separator" "$(json_string "$item")"
    separator=,
  done
  printf ']'
}

# ca_hash FILE: of the join token in FILE, which RKE2 writes in its secure form, the hash of the cluster's CA; nothing where
# there is no such file. For a CA of RKE2's own it is the SHA-256 of the certificate's PEM.
ca_hash() {
  local text
  [[ -s $1 ]] || return 0
  text=$(<"$1")
  [[ ! $text =~ ^K10([0-9a-f]{64}):: ]] || printf '%s' "${BASH_REMATCH[1]}"
}
