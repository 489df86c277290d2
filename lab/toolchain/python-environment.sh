# shellcheck shell=bash
# For recipes: a Python virtual environment with exactly what a lock file pins, every file checked by hash.

# python_environment_inputs LOCK: what the environment is made from; it links to the interpreter it was made with.
python_environment_inputs() {
  printf '%s\n' "$1" lab/toolchain/python-environment.sh
  python3 -c 'import os, platform, sys; print(os.path.realpath(sys.executable)); print(platform.python_version())'
}

# python_environment OUT LOCK
python_environment() {
  local out=$1 lock=$2
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$(python3 --version) at $(command -v python3) is too old: Python 3.11 or newer is needed"
  python3 -c 'import ensurepip' 2> /dev/null ||
    die "$(command -v python3) cannot make virtual environments (it has no ensurepip)." \
      "Run lab/toolchain/setup, or: apt-get install python3-venv"
  python3 -m venv --symlinks "$out"
  "$out/bin/python" -m pip install --disable-pip-version-check --no-input --retries 5 --progress-bar off \
    --require-hashes --no-deps -r "$lock"
  "$out/bin/python" -m pip check
  # The builder moves the folder when it is complete: commands find their interpreter beside them, not
  # by the path they were installed at. The activation scripts know only that path.
  rm -f "$out"/bin/[Aa]ctivate*
  python3 - "$out" << 'PY'
import pathlib, sys

out = pathlib.Path(sys.argv[1])
for script in sorted((out / "bin").iterdir()):
    content = b"" if script.is_symlink() else script.read_bytes()
    if content.startswith(f"#!{out}/bin/python".encode()):
        body = content.split(b"\n", 1)[1]
        trampoline = b"""#!/bin/sh\n'''exec' "$(dirname -- "$(realpath -- "$0")")/python3" "$0" "$@"\n' '''\n"""
        script.write_bytes(trampoline + body)
PY
  "$out/bin/python" -m compileall -q "$out/lib" || true
}
