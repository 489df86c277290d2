# shellcheck shell=bash
# GitLab Omnibus: configuration and certificate first (the package configures itself from them), then the
# package at its pinned version, then reconfigure only where something changed, then wait until it answers.

LOCK_REMEDY="read the lines above; gitlab-ctl tail shows what its services say"
MEDIA=/var/lib/opstella/media/gitlab
SSHD=/etc/ssh/sshd_config.d/opstella-git.conf
REPOSITORY=
RECONFIGURE=false
RENEWED=false

main() {
  payload_read
  require_text gitlab_rb version source edition host certificate private_key
  require package_url package_sha256 trusted_ca root_password
  optional timeout_seconds 1500
  optional package_url_rpm
  optional package_sha256_rpm
  optional administrators_from ''
  one_of source online airgap
  one_of edition ce ee
  number timeout_seconds
  [[ ${V[host]} =~ ^[A-Za-z0-9.-]+$ ]] || die "the value 'host' is '${V[host]}', not a host name" "write the name of external_url" 2
  PACKAGE=gitlab-${V[edition]}
  REPOSITORY=/etc/yum.repos.d/gitlab_$PACKAGE.repo
  must_be_root
  one_at_a_time
  stage
  other_edition_check
  version_check
  certificate_check

  # A first installation is not put back: it goes on where it stopped.
  installed_once || [[ -n $JOURNAL ]] || no_way_back ""
  install_configuration
  install_package
  reconfigure
  forget_root_password
  wait_for_https
  git_alone_from_elsewhere
  rm -rf -- "$MEDIA"
}

# ---- what is there ----------------------------------------------------------------------------

other_edition_check() {
  local other=gitlab-ee
  [[ $PACKAGE == gitlab-ce ]] || other=gitlab-ce
  ! package_installed "$other" || die "$other is installed here and $PACKAGE is wanted" "set the edition to '${other#gitlab-}', or convert by GitLab's own guide first"
}

# package_release 19.2.1-ce.0 or 19.2.1 -> 19.2.1
package_release() { printf '%s' "${1%%-*}"; }

version_check() {
  local installed from to
  installed=$(package_version "$PACKAGE")
  [[ -n $installed ]] || return 0
  from=$(package_release "$installed")
  to=$(package_release "${V[version]}")
  (($(version_compare "$from" "$to") <= 0)) || die "GitLab $from is installed and $to is wanted: a downgrade corrupts its database" "write $from or newer in the settings"
  ((${to%%.*} - ${from%%.*} <= 1)) || die "GitLab $from is installed and $to is wanted: that skips a major release" "follow GitLab's upgrade path: first the last release of $((${from%%.*} + 1))"
}

# nginx would refuse these only in the middle of reconfigure.
certificate_check() {
  printf '%s' "${V[certificate]}" >"$STAGE/certificate"
  (umask 077 && printf '%s' "${V[private_key]}" >"$STAGE/key")
  local ours theirs
  theirs=$(openssl x509 -noout -pubkey -in "$STAGE/certificate" 2>/dev/null) || die "the certificate for ${V[host]} is not PEM" "give the certificate and its chain in PEM form"
  ours=$(openssl pkey -pubout -in "$STAGE/key" 2>/dev/null) || die "the private key for ${V[host]} is not PEM, or needs a passphrase" "give an unencrypted PEM key"
  [[ $ours == "$theirs" ]] || die "the certificate for ${V[host]} does not match its private key" "give the pair that belongs together"
  openssl x509 -noout -checkhost "${V[host]}" -in "$STAGE/certificate" | grep -q 'does match' || die "the certificate does not cover ${V[host]}" "give one whose subject alternative names hold it"
}

# ---- install ----------------------------------------------------------------------------------

install_configuration() {
  folder /etc/gitlab
  local text=${V[gitlab_rb]}
  installed_once || text+=$(root_password_line)
  # No copy is kept of one that a run cut short has left the password in.
  if grep -qs "^gitlab_rails\['initial_root_password'\]" /etc/gitlab/gitlab.rb; then
    NO_COPY=true install_text /etc/gitlab/gitlab.rb 0600 "$text"
  else
    install_text /etc/gitlab/gitlab.rb 0600 "$text"
  fi
  [[ $DID == unchanged ]] || RECONFIGURE=true
  folder /etc/gitlab/ssl 0700
  install_text "/etc/gitlab/ssl/${V[host]}.crt" 0644 "${V[certificate]}"
  [[ $DID == unchanged ]] || RENEWED=true
  install_text "/etc/gitlab/ssl/${V[host]}.key" 0600 "${V[private_key]}"
  [[ $DID == unchanged ]] || RENEWED=true
  folder /etc/gitlab/trusted-certs
  install_certificates /etc/gitlab/trusted-certs crt "${V[trusted_ca]}"
  [[ $DID == unchanged ]] || RECONFIGURE=true
  # A run that died after the files and before reconfigure, or before nginx took the certificate.
  in_use gitlab "${V[version]} ${V[gitlab_rb]} ${V[trusted_ca]}" || RECONFIGURE=true
  in_use gitlab-certificate "${V[certificate]}" || RENEWED=true
}

install_package() {
  local installed
  installed=$(package_version "$PACKAGE")
  if [[ $(package_release "$installed") == "$(package_release "${V[version]}")" ]]; then
    unchanged "$PACKAGE $installed"
  else
    case $(os_family) in
      debian) install_by_apt ;;
      rhel) install_by_dnf ;;
    esac
    installed=$(package_version "$PACKAGE")
    [[ $(package_release "$installed") == "$(package_release "${V[version]}")" ]] || die "the package source brought $PACKAGE ${installed:-of no version} instead of ${V[version]}" "correct the version, or the package on the media server"
    changed "$PACKAGE $installed"
    RECONFIGURE=true
  fi
  hold_package
}

installed_once() { [[ -e $STATE/in-use/gitlab || -e $JOURNAL/files$STATE/in-use/gitlab ]]; }

# The password is set when GitLab seeds its database, in the first reconfigure. Whoever configures the package after an
# interruption runs that one (this phase, another one, an administrator's apt), so the password stands where all of them
# find it, until it is set.
root_password_line() {
  local text=${V[root_password]//\\/\\\\}
  [[ -z $text ]] || printf "\ngitlab_rails['initial_root_password'] = '%s'\n" "${text//\'/\\\'}"
}

forget_root_password() { NO_COPY=true install_text /etc/gitlab/gitlab.rb 0600 "${V[gitlab_rb]}"; }

# upgrading COMMAND...: what changes the package. Once it has, its database is migrated, and there is no way back.
upgrading() {
  local from
  from=$(package_version "$PACKAGE")
  [[ -z $from ]] || no_way_back "$PACKAGE is being upgraded from $from to ${V[version]}, which converts its data. Leave opstella:gitlab.version at ${V[version]}, correct what the lines above name and run again"
  "$@" && return
  [[ -z $from || $(package_version "$PACKAGE") != "$from" ]] || way_back
  return 1
}

package_suffix() { [[ ${V[version]} == *-* ]] && printf '%s' "${V[version]}" || printf '%s-%s.0' "${V[version]}" "${V[edition]}"; }

install_by_apt() {
  local what
  if [[ ${V[source]} == airgap ]]; then
    what=$MEDIA/$PACKAGE.deb
    fetch_package "$what"
  else
    what=$PACKAGE=$(package_suffix)
    add_repository deb
  fi
  apt_update
  command -v perl >/dev/null || package_install perl
  upgrading apt install --allow-change-held-packages "$what" || packages_failed "cannot install $PACKAGE ${V[version]}"
}

# The repository is switched off between installations (hold_package), so it is named here; the one of the sources is not
# needed.
install_by_dnf() {
  local what repositories=() name
  if [[ ${V[source]} == airgap ]]; then
    what=$MEDIA/$PACKAGE.rpm
    fetch_package "$what"
  else
    what=$PACKAGE-$(package_suffix).el9
    add_repository rpm
    while IFS= read -r name; do repositories+=(--enablerepo="$name"); done < <(sed -n 's/^\[\(.*\)\]$/\1/p' "$REPOSITORY" 2>/dev/null | grep -v -e '-source$' || true)
  fi
  package_install openssh-server perl policycoreutils
  upgrading dnf install ${repositories[@]+"${repositories[@]}"} "$what" || packages_failed "cannot install $PACKAGE ${V[version]}"
}

# fetch_package PATH: the .deb or the .rpm, as its name says.
fetch_package() {
  local kind=
  [[ $1 != *.rpm ]] || kind=_rpm
  [[ -n ${V[package_url$kind]} ]] || die "this host needs GitLab as ${1##*.}, and the settings name no such file" "put the ${1##*.} of GitLab ${V[version]} on the media server and its sum into opstella:media.sha256"
  require_text "package_sha256$kind"
  fetch_verified "${V[package_url$kind]}" "$1" "${V[package_sha256$kind]}"
  # apt's own download user reads it too.
  chmod 0644 "$1"
}

# add_repository deb|rpm: by GitLab's own script, which also brings the signing key.
add_repository() {
  local kind=$1 found url sum
  found=$(compgen -G "/etc/apt/sources.list.d/gitlab_$PACKAGE.*" || compgen -G "$REPOSITORY" || true)
  if [[ -n $found ]]; then
    unchanged "$found"
    return
  fi
  url=${V[package_url]:-https://packages.gitlab.com/install/repositories/gitlab/$PACKAGE/script.$kind.sh}
  sum=${V[package_sha256]}
  [[ $kind == deb ]] || sum=${V[package_sha256_rpm]}
  if [[ -n $sum ]]; then fetch_verified "$url" "$MEDIA/repository.sh" "$sum"; else fetch "$url" "$MEDIA/repository.sh"; fi
  # It runs curl and the package manager, which find the proxy in the environment.
  if ! bash "$MEDIA/repository.sh" >"$STAGE/repository" 2>&1 </dev/null; then
    redact <"$STAGE/repository" >&2
    die "GitLab's repository script failed: $(said "$STAGE/repository" 'curl: \(|error|unable|could not')" "$(curl_remedy "$(said "$STAGE/repository" 'curl: \(')")"
  fi
  APT_UPDATED=false
  changed "package repository of $PACKAGE"
}

# GitLab migrates its database when it is upgraded: never by accident, with everything else.
hold_package() {
  case $(os_family) in
    debian)
      if [[ -n $(apt-mark showhold "$PACKAGE") ]]; then
        unchanged "$PACKAGE is held"
      else
        apt-mark hold "$PACKAGE" >/dev/null
        changed "$PACKAGE is held"
      fi ;;
    rhel)
      [[ ! -f $REPOSITORY ]] || install_text "$REPOSITORY" 0644 "$(sed 's/^enabled *= *1/enabled=0/' "$REPOSITORY")"$'\n' ;;
  esac
}

# ---- configure --------------------------------------------------------------------------------

reconfigure() {
  if [[ $RECONFIGURE == false && $RENEWED == false ]]; then
    unchanged "GitLab is configured"
    return
  fi
  if [[ $RECONFIGURE == true ]]; then
    undo_by gitlab_back "${V[timeout_seconds]}"
    not_in_use gitlab
    if ! timeout --kill-after=10 "${V[timeout_seconds]}" gitlab-ctl reconfigure >"$STAGE/reconfigure" 2>&1 </dev/null; then
      say "last lines of gitlab-ctl reconfigure:"
      tail -n 40 "$STAGE/reconfigure" | redact >&2
      die "gitlab-ctl reconfigure failed" "mend what its last lines name (often gitlab.rb) and run again"
    fi
    changed "gitlab-ctl reconfigure"
  fi
  # nginx reads certificates only when it starts.
  if [[ $RENEWED == true ]]; then
    undo_by gitlab-ctl restart nginx
    not_in_use gitlab-certificate
    gitlab-ctl restart nginx >"$STAGE/nginx" 2>&1 </dev/null || { redact <"$STAGE/nginx" >&2; die "GitLab's nginx does not start with the new certificate" "$LOCK_REMEDY"; }
    changed "GitLab's nginx restarted for its certificate"
  fi
  now_in_use gitlab "${V[version]} ${V[gitlab_rb]} ${V[trusted_ca]}"
  now_in_use gitlab-certificate "${V[certificate]}"
}

gitlab_back() {
  timeout --kill-after=10 "$1" gitlab-ctl reconfigure 2>&1 </dev/null | tail -n 40 | redact
  return "${PIPESTATUS[0]}"
}

wait_for_https() {
  wait_until "${V[timeout_seconds]}" "https://${V[host]}/ on this host" answers || {
    gitlab-ctl status 2>&1 | redact >&2 || true
    die "GitLab does not answer at https://${V[host]}/: last ${ANSWER:-no answer}" "$LOCK_REMEDY"
  }
  unchanged "https://${V[host]}/ answers"
}

# The certificate is verified too, by the chain that comes with it and the CAs that were given.
answers() {
  local trust=()
  if [[ -n ${V[trusted_ca]} ]]; then
    printf '%s' "${V[trusted_ca]}" >"$STAGE/ca"
    trust=(--cacert "$STAGE/ca")
  fi
  ANSWER=$(curl --silent --show-error --max-time 15 --noproxy '*' "${trust[@]}" --resolve "${V[host]}:443:127.0.0.1" --output /dev/null --write-out 'HTTP status %{http_code}' "https://${V[host]}/" 2>"$STAGE/answer") || ANSWER=$(said "$STAGE/answer" '^curl: \(')
  [[ $ANSWER =~ ^'HTTP status '[234] ]]
}

# ---- SSH --------------------------------------------------------------------------------------

# Port 22 is open to everybody, for Git. From elsewhere than where administrators come from, sshd lets in the user git
# alone, whose keys GitLab holds to Git.
git_alone_from_elsewhere() {
  local client networks text unit=ssh
  [[ $(os_family) == debian ]] || unit=sshd
  list administrators_from
  if ((${#LIST[@]} == 0)); then
    if [[ -e $ROOT$SSHD ]]; then
      before_service "$unit" reload
      remove_file "$SSHD"
      systemctl try-reload-or-restart "$unit"
    fi
    return
  fi
  client=$(ssh_client)
  if ! comes_from_administrators "$client"; then
    warning "sshd stays as it is, and lets every account in from everywhere: this connection comes from $client and not from ${LIST[*]}. Set opstella:bastion.address to the address that the machines see"
    return
  fi
  networks=$(IFS=,; printf '%s' "${LIST[*]}")
  text="# Made by Opstella: port 22 is open to everybody for Git, and administrators come from their own networks.
Match User *,!git Address *,!${networks//,/,!}
  DenyUsers *
Match all"
  if [[ -e $ROOT$SSHD && $(<"$ROOT$SSHD") == "$text" ]]; then
    unchanged "$SSHD"
    return
  fi
  before_service "$unit" reload
  install_text "$SSHD" 0644 "$text"$'\n'
  sshd -t 2>"$STAGE/sshd" || die "sshd refuses $SSHD: $(head -n 3 "$STAGE/sshd" | paste -s -d ' ')" "run sshd -t on this host and correct what it names; nothing was changed"
  comes_from_administrators 203.0.113.1 || denied root 203.0.113.1 || die "sshd does not read $SSHD, so every account may log in from everywhere" "make 'Include /etc/ssh/sshd_config.d/*.conf' the first line of /etc/ssh/sshd_config, then run again"
  [[ -z $client ]] || ! denied root "$client" || die "the new rule of $SSHD would lock you out: this connection comes from $client" "set opstella:bastion.address to the address that the machines see; nothing was changed"
  systemctl try-reload-or-restart "$unit"
}

# comes_from_administrators CLIENT: whether the rule leaves this connection alone; one that nobody dialled has nothing to lose.
comes_from_administrators() {
  local network
  [[ -n $1 ]] || return 0
  [[ $1 != *:* ]] || return 1
  for network in "${LIST[@]}"; do
    ! in_network "$1" "$network" || return 0
  done
  return 1
}

# denied USER ADDRESS: whether sshd, as it is configured now, turns USER away who comes from ADDRESS.
denied() {
  local found
  found=$(sshd -T -C "user=$1,host=$2,addr=$2,laddr=127.0.0.1,lport=22" 2>/dev/null) || return 1
  [[ $'\n'$found$'\n' == *$'\ndenyusers *\n'* ]]
}
