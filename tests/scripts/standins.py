"""Stand-ins for installation media: just enough of RKE2 and GitLab to see what the scripts fetch, verify, write and restart.

They prove nothing about RKE2 or GitLab themselves: no cluster, no API, no Git. The lab has doubles that go further.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

_RKE2 = """#!/bin/sh
case "$1" in
  --version) echo "rke2 version {version} (stand-in)" ;;
  agent)
    grep -q broken /etc/rancher/rke2/config.yaml && {{ echo "unknown key, token: geheim" >&2; exit 1; }}
    echo "started $(date +%s%N)" >>/var/lib/rancher/rke2/starts
    {{ echo {version}; cat /etc/rancher/rke2/*.yaml /etc/default/rke2-agent; }} >/var/lib/rancher/rke2/runs-with 2>/dev/null
    systemd-notify --ready
    exec sleep infinity ;;
esac
"""
_UNIT = """[Service]
Type=notify
NotifyAccess=all
EnvironmentFile=-/etc/default/%N
TimeoutStartSec=0
Restart=always
RestartSec=1s
ExecStart=/usr/local/bin/rke2 agent
[Install]
WantedBy=multi-user.target
"""
_UNINSTALL = """#!/bin/sh
systemctl disable --now rke2-agent
rm -rf /usr/local/bin/rke2* /usr/local/lib/systemd/system/rke2-agent.service /var/lib/rancher /etc/rancher
systemctl daemon-reload
"""
_INSTALLER = """#!/bin/sh
set -eu
[ "$INSTALL_RKE2_METHOD" = tar ]
[ "$INSTALL_RKE2_TYPE" = agent ]
(cd "$INSTALL_RKE2_ARTIFACT_PATH" && sha256sum -c --quiet sha256sum-amd64.txt)
tar xzf "$INSTALL_RKE2_ARTIFACT_PATH/rke2.linux-amd64.tar.gz" -C /usr/local
"""


def rke2_media(folder: Path, version: str) -> list[str]:
    """Writes an air-gapped release into `folder`; its `SUM  FILE` lines."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "rke2.linux-amd64.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, mode, text in (
            ("bin/rke2", 0o755, _RKE2.format(version=version)),
            ("bin/rke2-uninstall.sh", 0o755, _UNINSTALL),
            ("lib/systemd/system/rke2-agent.service", 0o644, _UNIT),
        ):
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = mode, len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    (folder / "sha256sum-amd64.txt").write_text(f"{_sum(archive)}  {archive.name}\n")
    (folder / "install.sh").write_text(_INSTALLER)
    (folder / "rke2-images-core.linux-amd64.tar.zst").write_bytes(f"images of {version}".encode())
    return [f"{_sum(path)}  {path.name}" for path in sorted(folder.iterdir())]


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


_GITLAB_CTL = """#!/bin/bash
password=$(sed -n "s/^gitlab_rails\\['initial_root_password'\\] = '\\(.*\\)'$/\\1/p" /etc/gitlab/gitlab.rb)
echo "$* password=$password" >>/var/log/gitlab-ctl
host=$(sed -n "s#^external_url 'https://\\(.*\\)'#\\1#p" /etc/gitlab/gitlab.rb)
case "$1" in
  reconfigure)
    grep -q broken /etc/gitlab/gitlab.rb && { echo "NameError: undefined local variable, password: geheim"; exit 1; }
    # Seeded once, by whoever comes first.
    [ -e /var/opt/gitlab-password ] || echo "${password:-random}" >/var/opt/gitlab-password
    grep -Ev 'initial_root_password|^$' /etc/gitlab/gitlab.rb >/var/opt/gitlab-runs-with ;;
  restart) systemctl stop gitlab-standin ;;
esac
systemctl is-active -q gitlab-standin ||
  systemd-run -q --collect --unit=gitlab-standin openssl s_server -quiet -www -accept 443 -cert "/etc/gitlab/ssl/$host.crt" -key "/etc/gitlab/ssl/$host.key"
"""

_GITLAB_RAILS = """#!/bin/bash
[ "$1" = runner ] && [ "$(stat -c %a "$2")" = 644 ] || exit 9
wanted=$(cat)
echo "$* $wanted" >>/var/log/gitlab-rails
case $wanted in
  refuse*) echo "error: the user x is not ours"; echo "what to do: rename it"; exit 1 ;;
  break*) echo "PG::ConnectionBad, password: geheim" >&2; exit 1 ;;
esac
echo "unchanged: user x"
echo "changed: token 'a'"
"""


def gitlab_package(folder: Path, version: str) -> tuple[str, str]:
    """Builds a package gitlab-ce into `folder`: its file name and SHA-256."""
    tree = folder / f"tree-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: gitlab-ce\nVersion: {version}-ce.0\nArchitecture: amd64\nMaintainer: tests <tests@example.com>\nDescription: stand-in\n"
    )
    (tree / "DEBIAN/postinst").write_text("#!/bin/sh\n[ ! -e /etc/gitlab/gitlab.rb ] || gitlab-ctl reconfigure\n")
    (tree / "DEBIAN/postinst").chmod(0o755)
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/gitlab-ctl").write_text(_GITLAB_CTL)
    (tree / "usr/bin/gitlab-ctl").chmod(0o755)
    (tree / "usr/bin/gitlab-rails").write_text(_GITLAB_RAILS)
    (tree / "usr/bin/gitlab-rails").chmod(0o755)
    package = folder / f"gitlab-ce_{version}-ce.0_amd64.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", str(tree), str(package)], check=True, capture_output=True)
    return package.name, _sum(package)
