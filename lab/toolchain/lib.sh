# shellcheck shell=bash
# What the recipes share; sourced, with the repository's root as the working folder.

GO_MINIMUM_MINOR=26
TOOLCHAIN=$(dirname "$(realpath "${BASH_SOURCE[0]}")")

# Exit with a message on stderr: what, where, why, what to do.
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# find_go: puts a Go that can build the lab's modules first on PATH; false where the machine has none.
find_go() {
  local folder version minor path=$PATH
  for folder in "" /usr/local/go/bin /usr/lib/go-1.*/bin; do
    PATH="${folder:+$folder:}$path"
    command -v go > /dev/null || continue
    version=$(GOTOOLCHAIN=local go env GOVERSION)
    minor=${version#go1.}
    minor=${minor%%[!0-9]*}
    if [ "$minor" -ge "$GO_MINIMUM_MINOR" ]; then
      export PATH GOTOOLCHAIN=local
      return 0
    fi
    # From 1.21 on, go fetches the toolchain that a go.mod asks for from the Go module proxy.
    if [ "$minor" -ge 21 ]; then
      export PATH GOTOOLCHAIN="go1.$GO_MINIMUM_MINOR.0+auto"
      return 0
    fi
  done
  PATH=$path
  return 1
}

# require_go: the same, or the toolchain of the artifact `go`.
require_go() {
  local folder
  find_go && return
  unset GOROOT
  folder=$("$TOOLCHAIN/build" go) || die "no Go from 1.$GO_MINIMUM_MINOR on is here, and none could be had; see above"
  export PATH="$folder/bin:$PATH" GOTOOLCHAIN=local
}

# go_module NAME: a private copy of lab/toolchain/go/NAME, whose go.sum pins every module by hash,
# as the working folder. Removed when the recipe ends.
go_module() {
  require_go
  local work
  work=$(mktemp -d)
  # shellcheck disable=SC2064 # the folder as it is now
  trap "rm -rf '$work'" EXIT
  cp -r "lab/toolchain/go/$1/." "$work/"
  cd "$work" || return
  export GOFLAGS="-buildvcs=false -mod=readonly" GOWORK=off
}

# go_build ARGUMENT...: `go build` with bounded retries when a download fails, so that a hiccup of
# the network does not throw minutes of work away; what was downloaded and compiled is kept by Go.
go_build() {
  local try log
  log=$(mktemp -p .)
  for try in 1 2 3 4; do
    if go build "$@" 2> >(tee "$log" >&2); then
      return 0
    fi
    if ! grep -qiE 'dial tcp|i/o timeout|TLS handshake|connection re|unexpected EOF|50[0-9] |no such host' "$log"; then
      return 1
    fi
    printf 'a download failed (try %s of 4)\n' "$try"
    sleep $((try * 3))
  done
  die "Go modules could not be downloaded from $(go env GOPROXY); the last line was: $(tail -n 1 "$log")." \
    "Check that this address can be reached (or set GOPROXY), then build again: what was downloaded is kept."
}

# kubernetes_version_flags: linker flags that make a binary built from the module state its release.
kubernetes_version_flags() {
  local version major_minor
  version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
  major_minor=${version#v}
  printf -- '-s -w'
  printf -- ' -X k8s.io/component-base/version.%s' "gitVersion=$version" \
    "gitMajor=${major_minor%%.*}" "gitMinor=$(cut -d. -f2 <<< "$major_minor")"
}

# plugin_list: "NAME VERSION" lines of the resource plugins the product needs.
plugin_list() {
  sed -e 's/#.*//' -e '/^[[:space:]]*$/d' lab/toolchain/plugins.list
}
