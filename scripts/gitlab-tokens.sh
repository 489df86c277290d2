# shellcheck shell=bash
# Access tokens of GitLab, by the way that its documentation has for automation: a script in its own Rails environment.
# That takes about a minute to start, so it runs only for what is not in use yet. The script holds no secret; what it
# shall make comes to it by standard input.

PROGRAM=/var/lib/opstella/gitlab-tokens.rb

main() {
  payload_read
  require_text program wanted
  optional timeout_seconds 600
  number timeout_seconds
  must_be_root
  one_at_a_time
  stage
  command -v gitlab-rails >/dev/null || die "gitlab-rails is not here" "install GitLab on this host first (phase gitlab)"
  if in_use gitlab-tokens "${V[program]} ${V[wanted]}"; then
    unchanged "access tokens"
    return
  fi
  # It runs as the user git, who cannot read what lies in the stage.
  install_text "$PROGRAM" 0644 "${V[program]}"
  make_tokens
  now_in_use gitlab-tokens "${V[program]} ${V[wanted]}"
}

make_tokens() {
  local status=0 line problem='' remedy=''
  timeout --kill-after=10 "${V[timeout_seconds]}" gitlab-rails runner "$PROGRAM" < <(printf '%s' "${V[wanted]}") >"$STAGE/done" 2>"$STAGE/rails" || status=$?
  while IFS= read -r line; do
    case $line in
      'changed: '*) changed "${line#changed: }" ;;
      'unchanged: '*) unchanged "${line#unchanged: }" ;;
      'error: '*) problem=${line#error: } ;;
      'what to do: '*) remedy=${line#what to do: } ;;
    esac
  done <"$STAGE/done"
  [[ -z $problem ]] || die "$problem" "$remedy"
  ((status == 0)) && return
  say "last lines of gitlab-rails runner:"
  tail -n 20 "$STAGE/rails" | redact >&2
  ((status != 124 && status != 137)) || die "gitlab-rails runner did not end within ${V[timeout_seconds]} s" "look at this host's load and memory, then run again"
  die "gitlab-rails runner failed" "mend what its last lines name; gitlab-ctl status shows whether GitLab's database runs"
}
