"""The engine, plugins, wrapper and set-up of lab/toolchain, as they are built on this machine.

The last part runs a six-resource program with the built engine against a real kube-apiserver and etcd
on loopback, with its controllers and without nodes: it shows that engine, language host, the real Kubernetes provider and
the stand-in for random fit together. It says nothing of scheduling, pods or Helm releases.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.toolchain

ROOT = Path(__file__).parents[2]
TOOLCHAIN = ROOT / "lab/toolchain"
RELEASE = re.search(r"^pulumi==(.+)$", (ROOT / "requirements.in").read_text(), re.MULTILINE).group(1)


def clean_environment(**changes: str) -> dict[str, str]:
    """This process's environment without what steers Pulumi or the toolchain, built engine forced."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PULUMI_", "OPSTELLA_"))}
    if "OPSTELLA_CACHE" in os.environ:
        kept["OPSTELLA_CACHE"] = os.environ["OPSTELLA_CACHE"]
    return {**kept, "OPSTELLA_ENGINE": "build", **changes}


def artifact(name: str) -> Path:
    run = subprocess.run([TOOLCHAIN / "build", name], stdout=subprocess.PIPE, text=True, check=True)
    return Path(run.stdout.strip())


def environment_of_wrapper(cwd: Path = ROOT, **changes: str) -> dict[str, str]:
    """What `lab/toolchain/pulumi --environment` chooses."""
    run = subprocess.run(
        [TOOLCHAIN / "pulumi", "--environment"], cwd=cwd, env=clean_environment(**changes),
        capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    return dict(line.split("=", 1) for line in run.stdout.splitlines())


# --- pins ------------------------------------------------------------------------------------------


def test_plugins_and_engine_have_the_releases_of_the_sdks() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.in").read_text(), re.MULTILINE))
    plugins = [line.split() for line in (TOOLCHAIN / "plugins.list").read_text().splitlines() if line[:1] not in "#"]
    assert {name: pins[f"pulumi-{name}"] for name, _ in plugins} == dict(plugins) and len(plugins) == 4
    assert f"github.com/pulumi/pulumi/pkg/v3 v{RELEASE} " in (TOOLCHAIN / "go/pulumi/go.mod").read_text()
    assert f'"kubernetes", "{pins["pulumi-kubernetes"]}"' in (TOOLCHAIN / "go/provider-kubernetes/main.go").read_text()


def test_the_lock_holds_every_pin_of_the_users_requirements_with_hashes() -> None:
    def pinned(file: str) -> dict[str, int]:
        blocks = re.split(r"\n(?=\S)", (ROOT / file).read_text())
        return {b.split(" ")[0]: b.count("--hash=sha256:") for b in blocks if not b.startswith("#")}

    user, everything = pinned("requirements.txt"), pinned("requirements.lock")
    assert min(everything.values()) > 0 and len(user) > 20
    assert user.items() <= everything.items()
    asked = re.findall(r"^[\w-]+==\S+", (ROOT / "requirements.in").read_text(), re.MULTILINE)
    assert {pin.lower() for pin in asked} <= set(user)


def test_the_environment_is_what_the_lock_says_and_can_be_moved(tmp_path: Path) -> None:
    venv = artifact("venv")
    moved = tmp_path / "moved"
    shutil.copytree(venv, moved, symlinks=True)
    locked = set(re.findall(r"^([\w.-]+==\S+) \\$", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    freeze = [moved / "bin/pip", "--disable-pip-version-check", "list", "--format=freeze"]
    listed = subprocess.run(freeze, capture_output=True, text=True, check=True).stdout.lower().replace("_", "-").split()
    assert {pin.lower() for pin in locked} <= set(listed)
    where = subprocess.run([moved / "bin/pip", "--version"], capture_output=True, text=True, check=True).stdout
    assert f"from {moved}/lib/" in where


# --- the wrapper ------------------------------------------------------------------------------------


def test_wrapper_runs_the_built_engine_of_the_pinned_release() -> None:
    run = subprocess.run(
        [TOOLCHAIN / "pulumi", "version"], env=clean_environment(), capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == f"v{RELEASE}"


def test_wrapper_installs_the_plugins_and_forbids_downloads_with_stand_ins() -> None:
    chosen = environment_of_wrapper()
    assert chosen["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] == "true"
    run = subprocess.run(
        [TOOLCHAIN / "pulumi", "plugin", "ls", "--json"], env=clean_environment(), capture_output=True, text=True, check=True
    )
    found = {plugin["name"]: plugin["version"] for plugin in json.loads(run.stdout)}
    wanted = [line.split() for line in (TOOLCHAIN / "plugins.list").read_text().splitlines() if line[:1] not in "#"]
    assert found == dict(wanted)


def test_wrapper_links_the_environment_before_any_engine_could_make_one(tmp_path: Path) -> None:
    """Where `venv` is missing the released language host makes a folder of that name and fills it from the network."""
    checkout = tmp_path / "checkout"
    for folder in ("lab/toolchain", "lab/providers"):
        shutil.copytree(ROOT / folder, checkout / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.in", "requirements.txt", "requirements.lock", "requirements-dev.in", "Pulumi.yaml"):
        shutil.copy(ROOT / name, checkout / name)

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["lab/toolchain/pulumi", "version"], cwd=checkout, env=clean_environment(), capture_output=True, text=True,
            check=True, timeout=600,
        )  # fmt: skip

    assert run().stdout.startswith("v")
    assert (checkout / "venv").resolve() == artifact("venv").resolve()
    (checkout / "venv").unlink()
    (checkout / "venv").mkdir()
    assert "venv is a folder" in run().stderr


def test_wrapper_uses_the_users_backend_before_a_folder_of_its_own(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".pulumi").mkdir(parents=True)
    cache = environment_of_wrapper()["PULUMI_HOME"].removesuffix("/pulumi-home")
    environment = {"HOME": str(home), "OPSTELLA_CACHE": cache}
    assert environment_of_wrapper(**environment)["PULUMI_BACKEND_URL"] == f"file://{ROOT}/.pulumi-state"
    assert environment_of_wrapper(**environment, PULUMI_BACKEND_URL="s3://mine")["PULUMI_BACKEND_URL"] == "s3://mine"
    credentials = home / ".pulumi/credentials.json"
    credentials.write_text('{"current": "https://api.example.test"}')
    chosen = environment_of_wrapper(**environment)
    assert chosen["PULUMI_BACKEND_URL"] == "" and chosen["PULUMI_CREDENTIALS_PATH"] == str(home / ".pulumi")
    credentials.write_text('{"current": ""}')
    assert environment_of_wrapper(**environment)["PULUMI_BACKEND_URL"] != ""
    project = tmp_path / "project"
    project.mkdir()
    (project / "Pulumi.yaml").write_text("name: x\nruntime: python\nbackend:\n  url: gs://theirs\n")
    assert environment_of_wrapper(project, **environment)["PULUMI_BACKEND_URL"] == ""


def test_wrapper_asks_for_a_passphrase_before_the_engine_starts(tmp_path: Path) -> None:
    def preview(**changes: str) -> subprocess.CompletedProcess[str]:
        environment = clean_environment(PULUMI_BACKEND_URL=f"file://{tmp_path}", **changes)
        return subprocess.run(
            [TOOLCHAIN / "pulumi", "preview"], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    without = preview()
    assert without.returncode == 1 and "no passphrase" in without.stderr and "PULUMI_CONFIG_PASSPHRASE_FILE" in without.stderr
    unreadable = preview(PULUMI_CONFIG_PASSPHRASE_FILE=str(tmp_path / "absent"))
    assert unreadable.returncode == 1 and str(tmp_path / "absent") in unreadable.stderr
    given = preview(PULUMI_CONFIG_PASSPHRASE="x")
    assert "no Pulumi.yaml project file" in given.stderr, "the engine itself was not reached"


def released_engine(folder: Path, version: str, host: bool = True) -> None:
    """What looks like a released command line: answers `version`, and has a language host beside it."""
    folder.mkdir()
    for name, body in [("pulumi", f"echo v{version}"), *([("pulumi-language-python", "exit 1")] if host else [])]:
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("version", "host", "taken"),
    [(RELEASE, True, True), ("3.1000.0", True, True), ("3.99.0", True, False), (RELEASE, False, False)],
    ids=["same", "newer", "older", "no-language-host"],
)
def test_wrapper_takes_a_released_engine_that_is_good_enough(tmp_path: Path, version: str, host: bool, taken: bool) -> None:
    released_engine(tmp_path / "bin", version, host)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    chosen = environment_of_wrapper(PATH=path, OPSTELLA_ENGINE="auto")
    assert (chosen["ENGINE"] == f"{tmp_path}/bin") is taken
    assert environment_of_wrapper(PATH=path)["ENGINE"] == f"{artifact('pulumi')}/bin", "OPSTELLA_ENGINE=build is ignored"


# --- set-up -----------------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path):
    """Runs setup with commands of its own for apt, dpkg and curl, which write down how they were called."""
    commands = tmp_path / "commands"
    commands.mkdir()
    log = tmp_path / "log"
    log.touch()

    def run(*arguments: str, scripts: dict[str, str], **changes: str) -> subprocess.CompletedProcess[str]:
        for name, body in scripts.items():
            (commands / name).write_text(f'#!/bin/bash\necho "{name} $*" >> {log}\n{body}\n')
            (commands / name).chmod(0o755)
        environment = clean_environment(PATH=f"{commands}:{os.environ['PATH']}", **changes)
        environment.pop("CI", None)
        return subprocess.run(
            [TOOLCHAIN / "setup", *arguments], env=environment, capture_output=True, text=True, check=False, timeout=600
        )

    run.log = log
    run.folder = tmp_path
    return run


def test_setup_installs_only_the_missing_packages(machine) -> None:
    have = machine.folder / "have"
    dpkg = f'for p; do :; done; case $p in jq|zstd) [ -e {have} ] || exit 1;; esac; printf installed'
    apt = f'case " $* " in *" install "*) touch {have};; esac'
    run = machine(scripts={"dpkg-query": dpkg, "apt-get": apt, "id": "echo 0"})
    assert run.returncode == 0, run.stderr
    (install,) = [line for line in machine.log.read_text().splitlines() if " install " in line]
    assert install.split("--no-install-recommends ")[1] == "jq zstd"
    machine.log.write_text("")
    again = machine(scripts={})
    assert again.returncode == 0 and "apt-get" not in machine.log.read_text() and "all there" in again.stderr


def test_setup_says_what_is_missing_without_root(machine) -> None:
    run = machine(scripts={"dpkg-query": 'case "$*" in *jq) exit 1;; esac; printf installed', "id": "echo 1000", "apt-get": ""})
    assert run.returncode == 1 and "sudo apt-get install --no-install-recommends jq" in run.stderr
    assert "apt-get" not in machine.log.read_text()


def test_setup_gives_up_on_a_package_after_bounded_tries(machine) -> None:
    dpkg = 'case "$*" in *jq) exit 1;; esac; printf installed'
    run = machine(scripts={"dpkg-query": dpkg, "id": "echo 0", "apt-get": "exit 100", "sleep": ""})
    assert run.returncode == 1 and "after 3 tries" in run.stderr and "jq" in run.stderr
    assert machine.log.read_text().count("apt-get") == 3


def test_setup_does_not_wait_for_a_released_engine_that_cannot_be_had(machine) -> None:
    # A host that swallows packets: curl would hang for a minute; only the time-out ends it.
    began = time.monotonic()
    baseline = machine("engine", scripts={}, OPSTELLA_OFFLINE="1", OPSTELLA_ENGINE="auto", HOME=str(machine.folder),
                       OPSTELLA_CACHE=str(artifact("pulumi").parents[1]))  # fmt: skip
    assert baseline.returncode == 0, baseline.stderr
    offline = time.monotonic() - began
    began = time.monotonic()
    run = machine("engine", scripts={"curl": "exec sleep 60"}, OPSTELLA_ENGINE="auto", HOME=str(machine.folder),
                  OPSTELLA_CACHE=str(artifact("pulumi").parents[1]))  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "curl" in machine.log.read_text()
    assert time.monotonic() - began < offline + 4
    assert machine.log.read_text().count("curl") == 1


@pytest.mark.parametrize("variable", [{"CI": "true"}, {"OPSTELLA_OFFLINE": "1"}, {"OPSTELLA_ENGINE": "build"}], ids=str)
def test_setup_does_not_ask_for_a_released_engine_when_told(machine, variable: dict[str, str]) -> None:
    scripts = {"curl": "exit 0"}
    environment = {"OPSTELLA_ENGINE": "auto", "OPSTELLA_CACHE": str(artifact("pulumi").parents[1]), **variable}
    machine("engine", scripts=scripts, OPSTELLA_OFFLINE="1")  # writes the command
    machine.log.write_text("")
    run = subprocess.run(
        [TOOLCHAIN / "setup", "engine"],
        env={**clean_environment(PATH=f"{machine.folder}/commands:{os.environ['PATH']}"), **environment,
             "HOME": str(machine.folder)},
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert machine.log.read_text() == ""


def test_setup_installs_the_released_engine_and_plugins_when_their_host_answers(machine, tmp_path: Path) -> None:
    # The host's installer, reduced to its contract: --version, --install-root, --no-edit-path.
    engine = (
        f'case $1 in version) echo v{RELEASE};; plugin) d=$HOME/.pulumi/plugins/resource-$4-v$5; mkdir -p $d; '
        "touch $d/pulumi-resource-$4; chmod +x $d/pulumi-resource-$4;; esac"
    )
    installer = tmp_path / "installer.sh"
    installer.write_text(
        "set -e\n[ $1 = --version ] && [ $3 = --install-root ] && [ $5 = --no-edit-path ]\nmkdir -p $4/bin\n"
        f"printf '%s\\n' '#!/bin/sh' '{engine}' > $4/bin/pulumi\nprintf '#!/bin/sh\\n' > $4/bin/pulumi-language-python\n"
        "chmod +x $4/bin/*\n"
    )
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "venv").symlink_to(artifact("venv").parent)
    curl = f'while [ $# -gt 0 ]; do if [ "$1" = -o ]; then out=$2; fi; shift; done; [ $out = /dev/null ] || cp {installer} $out'
    environment = {"OPSTELLA_ENGINE": "auto", "OPSTELLA_CACHE": str(cache), "HOME": str(tmp_path)}
    run = machine("engine", scripts={"curl": curl}, **environment)
    assert run.returncode == 0, run.stderr
    assert (cache / f"official/pulumi-{RELEASE}/bin/pulumi").exists()
    assert len(list((tmp_path / ".pulumi/plugins").iterdir())) == 4
    assert not (cache / "pulumi").exists() and not (cache / "plugins").exists(), "the engine was built all the same"
    chosen = environment_of_wrapper(**environment)
    assert chosen["ENGINE"] == f"{cache}/official/pulumi-{RELEASE}/bin" and chosen["PLUGINS"] == "released"
    assert chosen["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] == ""
    again = machine("engine", scripts={}, **environment)
    assert "the released one in" in again.stderr


# --- a program against a real API server ------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, f"ended with {process.returncode}: {log.read_text()[-2000:]}"
        with contextlib.suppress(OSError, urllib.error.URLError):
            request = urllib.request.Request(url, headers={"Authorization": "Bearer token-of-the-test"})
            with urllib.request.urlopen(request, context=context if url.startswith("https") else None, timeout=5):
                return
        time.sleep(0.3)
    raise AssertionError(f"{url} did not answer in 90 s: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory):
    """kubeconfig of a kube-apiserver with etcd behind it, on loopback."""
    folder = tmp_path_factory.mktemp("api")
    kubernetes, etcd = artifact("kubernetes"), artifact("etcd")
    client, peer, secure = free_port(), free_port(), free_port()
    subprocess.run(["openssl", "genrsa", "-out", folder / "sa.key", "2048"], check=True, capture_output=True)
    (folder / "tokens.csv").write_text('token-of-the-test,admin,admin,"system:masters"\n')
    running: list[subprocess.Popen[bytes]] = []

    def start(name: str, command: list[object], url: str) -> None:
        log = folder / f"{name}.log"
        with open(log, "wb") as output:
            running.append(subprocess.Popen([str(part) for part in command], stdout=output, stderr=output, cwd=folder))
        wait_for(url, running[-1], log)

    try:
        endpoint = f"http://127.0.0.1:{client}"
        start(
            "etcd",
            [etcd / "etcd", "--data-dir", folder / "etcd", "--listen-client-urls", endpoint, "--advertise-client-urls",
             endpoint, "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--unsafe-no-fsync"],
            f"{endpoint}/health",
        )  # fmt: skip
        start(
            "apiserver",
            [kubernetes / "kube-apiserver", "--etcd-servers", endpoint, "--bind-address", "127.0.0.1", "--secure-port",
             secure, "--cert-dir", folder / "certs", "--service-account-issuer", "https://kubernetes.default.svc",
             "--service-account-key-file", folder / "sa.key", "--service-account-signing-key-file", folder / "sa.key",
             "--authorization-mode", "RBAC", "--token-auth-file", folder / "tokens.csv",
             "--service-cluster-ip-range", "172.16.76.0/22"],
            f"https://127.0.0.1:{secure}/readyz",
        )  # fmt: skip
        server = {"server": f"https://127.0.0.1:{secure}", "insecure-skip-tls-verify": True}
        text = json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": "test", "user": {"token": "token-of-the-test"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        })  # fmt: skip
        (folder / "kubeconfig").write_text(text)
        # Deleting a namespace, or anything in the foreground, is done by the controllers.
        probe = free_port()
        start(
            "controllers",
            [kubernetes / "kube-controller-manager", "--kubeconfig", folder / "kubeconfig", "--leader-elect=false",
             "--service-account-private-key-file", folder / "sa.key", "--root-ca-file", folder / "certs/apiserver.crt",
             "--bind-address", "127.0.0.1", "--secure-port", probe, "--cert-dir", folder / "controllers"],
            f"https://127.0.0.1:{probe}/healthz",
        )  # fmt: skip
        yield text
    finally:
        for process in reversed(running):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


PROGRAM = """
import os
import pulumi
import pulumi_kubernetes as k8s
import pulumi_random as random

provider = k8s.Provider("cluster", kubeconfig=pulumi.Output.secret(os.environ["TEST_KUBECONFIG"]))
options = pulumi.ResourceOptions(provider=provider)
password = random.RandomPassword("password", length=24)
namespace = k8s.core.v1.Namespace("space", metadata={"name": "space"}, opts=options)
secret = k8s.core.v1.Secret(
    "secret",
    metadata={"namespace": namespace.metadata.name, "name": "secret"},
    string_data={"password": password.result},
    opts=options,
)
k8s.core.v1.ConfigMap(
    "settings",
    metadata={"namespace": namespace.metadata.name, "name": "settings", "labels": {"size": os.environ.get("TEST_SIZE", "1")}},
    data={"key": "value"},
    opts=options,
)
k8s.core.v1.ServiceAccount("account", metadata={"namespace": namespace.metadata.name, "name": "account"}, opts=options)
pulumi.export("password", password.result)
pulumi.export("namespace", namespace.metadata.name)
"""


class Project:
    """A project with a state folder of its own, run by the wrapper."""

    def __init__(self, folder: Path, program: str, kubeconfig: str = "") -> None:
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir()
        (folder / "Pulumi.yaml").write_text("name: sample\nruntime:\n  name: python\n")
        (folder / "__main__.py").write_text(program)
        self.environment = clean_environment(
            PULUMI_BACKEND_URL=f"file://{self.state}", PULUMI_CONFIG_PASSPHRASE="of the test", TEST_KUBECONFIG=kubeconfig
        )
        self.run("stack", "init", "dev")

    def run(self, *arguments: str, status: int = 0, **changes: str) -> str:
        run = subprocess.run(
            [TOOLCHAIN / "pulumi", *arguments, "--non-interactive"], cwd=self.folder, env={**self.environment, **changes},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert run.returncode == status, run.stdout + run.stderr
        return run.stdout + run.stderr


def test_six_resources_against_a_real_api_server(tmp_path: Path, kubeconfig: str) -> None:
    project = Project(tmp_path, PROGRAM, kubeconfig)
    assert "+ 7 to create" in project.run("preview")  # six and the stack itself
    up = project.run("up", "--yes", "--skip-preview")
    assert "+ 7 created" in up and "warning" not in up, up
    assert "7 unchanged" in project.run("preview", "--expect-no-changes")

    # What the server holds is what the program asked for, its random password included.
    outputs = json.loads(project.run("stack", "output", "--json", "--show-secrets"))
    assert len(outputs["password"]) == 24
    (tmp_path / "kubeconfig").write_text(kubeconfig)
    kubectl = [artifact("kubectl") / "kubectl", "--kubeconfig", tmp_path / "kubeconfig", "--namespace", "space", "get"]
    found = subprocess.run(
        [*kubectl, "secret", "secret", "-o", "go-template={{.data.password | base64decode}}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout == outputs["password"]
    state = "".join(file.read_text() for file in state_files(project.state))
    assert outputs["password"] not in state and "token-of-the-test" not in state

    changed = project.run("up", "--yes", "--skip-preview", TEST_SIZE="2")
    assert "~ 1 updated" in changed and "6 unchanged" in changed
    assert "- 7 deleted" in project.run("destroy", "--yes", "--skip-preview")
    gone = subprocess.run([*kubectl, "secret", "secret"], capture_output=True, text=True, check=False)
    assert gone.returncode != 0 and "NotFound" in gone.stderr


def state_files(folder: Path) -> list[Path]:
    files = [file for file in folder.rglob("*.json*") if file.is_file()]
    assert files, "no state file to look into"
    return files


# --- the language host ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "status", "shown", "hidden"),
    [
        ("import sys\nsys.exit('settings: key x is wrong')", 1, ["settings: key x is wrong", "exit code: 1"], ["Traceback"]),
        ("import sys\nprint('a page', file=sys.stderr)\nsys.exit(1)", 1, ["a page", "exit code: 1"], ["Traceback"]),
        (
            "import sys, pulumi\npulumi.log.error('a page')\nsys.exit(32)",
            1,
            ["error: a page\n"],
            ["Traceback", "exit code", "unhandled"],
        ),
        (
            "import pulumi\nraise pulumi.RunError('first\\nsecond')",
            1,
            ["error: first\n", "second\n", "error: an unhandled error occurred: program exited with non-zero exit code: 1"],
            ["Traceback"],
        ),
        (
            "def inner():\n    raise ValueError('boom')\ninner()",
            1,
            ["unhandled exception", "__main__.py\", line 2, in inner", "ValueError: boom"],
            ["runpy", "run_until_complete"],
        ),
        ("import pulumi\npulumi.Output.from_input(1).apply(lambda _: 1 / 0)", 1, ["ZeroDivisionError"], []),
        ("import sys\nsys.exit(0)", 0, [], ["error"]),
        ("print('said')", 0, ["said"], ["error"]),
        ("import pulumi\npulumi.export('x', pulumi.Config().require('absent'))", 1, ["absent"], []),
    ],
    ids=["exit-text", "exit-number", "exit-shown", "run-error", "exception", "apply", "exit-zero", "print", "missing-key"],
)
def test_language_host_shows_how_a_program_ended(
    tmp_path: Path, program: str, status: int, shown: list[str], hidden: list[str]
) -> None:
    project = Project(tmp_path, program)
    said = project.run("preview", status=status)
    for text in shown:
        assert text in said
    for text in hidden:
        assert text not in said
    # The engine asks the host to stop; that leaves no complaint and no process.
    assert "KeyboardInterrupt" not in said and "signal" not in said


FAILING = """
import sys
sys.path.insert(0, {root!r})
import pulumi
from pulumi_command import local
from stacks.ending import leave_when_interrupted, settle

leave_when_interrupted()
last = "x"
for number in range(4):
    step = local.Command(f"step-{{number}}", create=pulumi.Output.concat("sleep 0.5; echo ", last))
    last = step.stdout
failing = local.Command("failing", create="sleep 0.7; echo 'error: the reason' >&2; exit 1")
user = local.Command("user", create=pulumi.Output.concat("echo ", failing.stdout))
local.Command("waiting", create="true", opts=pulumi.ResourceOptions(depends_on=[failing]))
pulumi.export("failed", user.stdout)
pulumi.export("last", last)
pulumi.run(settle)
"""


@pytest.mark.parametrize("options", [[], ["--continue-on-error"]], ids=["stop", "go-on"])
def test_a_failed_run_ends_with_the_reason_and_no_trace_of_the_program(tmp_path: Path, options: list[str]) -> None:
    project = Project(tmp_path, FAILING.format(root=str(ROOT)))
    for _ in range(3):  # what the engine's interruption meets differs from run to run
        said = project.run("up", "--yes", "--skip-preview", *options, status=1)
        assert "error: the reason" in said
        assert "Traceback" not in said and "KeyboardInterrupt" not in said and "exit code" not in said, said
        if options:
            # Everything that does not need the failed step has been made.
            assert "error: update failed" not in said
            made = json.loads(project.run("stack", "export"))["deployment"]["resources"]
            assert {r["urn"].rsplit("::", 1)[1] for r in made if "Command" in r["urn"]} == {f"step-{n}" for n in range(4)}


SILENT = """
import sys
sys.path.insert(0, {root!r})
import pulumi
from pulumi_command import remote
from components.watchdog import Step, Watchdog
from stacks.ending import leave_when_interrupted, settle

leave_when_interrupted()
watchdog = Watchdog("watchdog")
connection = remote.ConnectionArgs(host="127.0.0.1", port={port}, user="x", password="x", dial_error_limit=0)
hooks = watchdog.binding("silent", Step(machine="worker-3", seconds=1, limit=3))
remote.Command("silent", connection=connection, create="true", opts=pulumi.ResourceOptions(hooks=hooks))
pulumi.run(settle)
"""


def test_a_step_whose_machine_sends_nothing_ends_and_is_named(tmp_path: Path) -> None:
    with socket.socket() as hung:  # an sshd that accepts and never speaks
        hung.bind(("127.0.0.1", 0))
        hung.listen()
        project = Project(tmp_path, SILENT.format(root=str(ROOT), port=hung.getsockname()[1]))
        began = time.monotonic()
        said = project.run("up", "--yes", "--skip-preview", status=1)
    assert time.monotonic() - began < 90
    assert "error: worker-3: silent has not ended after 3 s" in said and "What to do: " in said
    assert "Traceback" not in said
    # It was not made, so the next run tries again.
    made = json.loads(project.run("stack", "export"))["deployment"]["resources"]
    assert not [r for r in made if r["urn"].endswith("::silent")]


def test_a_program_without_that_end_leaves_its_trace(tmp_path: Path) -> None:
    """The engine's cancel reaches the program here as it does by the released host."""
    bare = FAILING.format(root=str(ROOT)).replace("leave_when_interrupted()\n", "\n").replace("pulumi.run(settle)\n", "")
    said = Project(tmp_path, bare).run("up", "--yes", "--skip-preview", "--continue-on-error", status=1)
    assert "Program failed with an unhandled exception" in said and "ResourceRegistrationFailed" in said


def test_language_host_gives_the_program_its_settings_folder_and_modules(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("VALUE = 'from a module beside the program'\n")
    project = Project(
        tmp_path,
        "import os, pulumi, helper\nconfig = pulumi.Config()\n"
        "pulumi.export('all', [config.require('plain'), helper.VALUE, os.getcwd(), pulumi.get_stack(), __name__])\n"
        "pulumi.export('hidden', config.require_secret('hidden'))\n",
    )
    project.run("config", "set", "plain", "value")
    project.run("config", "set", "--secret", "hidden", "canary-value")
    up = project.run("up", "--yes", "--skip-preview")
    assert "canary-value" not in up
    outputs = json.loads(project.run("stack", "output", "--json"))
    assert outputs["all"] == ["value", "from a module beside the program", str(tmp_path), "dev", "__main__"]
    assert outputs["hidden"] == "[secret]"


def test_language_host_says_which_package_the_interpreter_lacks(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run(["python3", "-m", "venv", "--without-pip", bare], check=True)
    host = artifact("pulumi") / "bin/pulumi-language-python"
    run = subprocess.run(
        [host], env=clean_environment(OPSTELLA_PYTHON=f"{bare}/bin/python"), capture_output=True, text=True, check=False
    )
    assert run.returncode == 1 and "lacks the Pulumi SDK" in run.stderr and f"{bare}/bin/python" in run.stderr
