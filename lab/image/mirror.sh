# shellcheck shell=bash
# Where this machine gets its Debian packages: read from its own apt sources, so that a
# machine behind a mirror or a proxy uses the same one.

# debian_release: the release the lab's hosts run.
# shellcheck disable=SC2034 # read by those who source this file
debian_release=bookworm

# debian_mirror: prints the base URL of this machine's Debian archive.
debian_mirror() {
  local url
  # shellcheck disable=SC2016 # apt's own variables
  url=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(CODENAME)' 'Created-By: Packages' \
    | awk '$2 == "Debian" && $3 !~ /security/ {print $1; exit}')
  if [ -z "$url" ]; then
    echo "lab/image: no Debian archive among this machine's apt sources (/etc/apt/sources.list*)." \
      "Run apt-get update, or add a Debian source; the lab's hosts are built from it." >&2
    return 1
  fi
  printf '%s\n' "${url%/}"
}

# debian_security_mirror: prints the base URL of the security archive, nothing when there is none.
debian_security_mirror() {
  local url
  # shellcheck disable=SC2016 # apt's own variables
  url=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(CODENAME)' 'Created-By: Packages' \
    | awk '$2 == "Debian" && $3 ~ /security/ {print $1; exit}')
  printf '%s\n' "${url%/}"
}
