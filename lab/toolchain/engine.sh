# shellcheck shell=bash
# Which engine and plugins this machine uses; sourced after lib.sh, with the repository's root as the
# working folder. Apart from lib.sh, which is an input of every recipe.

# The Pulumi release that the SDK in requirements.in belongs to.
pulumi_release() {
  sed -n 's/^pulumi==//p' requirements.in
}

# Where Pulumi keeps a user's own plugins and login.
user_pulumi_home() {
  printf '%s\n' "${PULUMI_HOME:-$HOME/.pulumi}"
}

opstella_cache() {
  printf '%s\n' "${OPSTELLA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/opstella}"
}

# official_engine: the folder of a released pulumi command that is new enough and has its language host
# beside it or on PATH; fails when there is none. OPSTELLA_ENGINE=build asks for the build instead.
official_engine() {
  local candidate release
  [ "${OPSTELLA_ENGINE:-auto}" != build ] || return 1
  release=$(pulumi_release)
  for candidate in "$(command -v pulumi || true)" "$(opstella_cache)/official/pulumi-$release/bin/pulumi"; do
    [ -x "$candidate" ] || continue
    [ "$(realpath "$candidate")" != "$(realpath lab/toolchain/pulumi)" ] || continue
    [ -x "$(dirname "$candidate")/pulumi-language-python" ] || command -v pulumi-language-python > /dev/null || continue
    # The oldest of two versions comes first in `sort -V`.
    if [ "$(printf '%s\n' "$release" "$("$candidate" version 2> /dev/null | sed 's/^v//')" | sort -V | head -n 1)" = "$release" ]; then
      dirname "$candidate"
      return 0
    fi
  done
  return 1
}

# official_plugins FOLDER: whether a PULUMI_HOME has every resource plugin at its exact version.
official_plugins() {
  local name version
  [ "${OPSTELLA_ENGINE:-auto}" != build ] || return 1
  while read -r name version; do
    [ -x "$1/plugins/resource-$name-v$version/pulumi-resource-$name" ] || return 1
  done < <(plugin_list)
}

# link_environment: `venv` in the repository, where Pulumi.yaml sends the released language host, becomes the artifact's
# environment; before any engine starts, since that host makes a folder of this name where there is none and fills it from
# the network. False where it is a folder already, which stays.
link_environment() {
  local venv
  venv=$(realpath "$(lab/toolchain/build venv)")
  if [ -e venv ] && [ ! -L venv ]; then
    return 1
  elif [ "$(readlink venv || true)" != "$venv" ]; then
    # In one step: another engine may be starting by this link right now.
    ln -sfn "$venv" "venv.$$"
    mv -T "venv.$$" venv
  fi
}
