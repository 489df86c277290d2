"""`lab/lab`: a sealed data centre on one machine, built after a stack's plan."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from lab.hosts import kernel, limits, overlay, usage
from lab.hosts.kernel import KernelError, run
from lab.hosts.machines import Machines
from lab.hosts.services import Services
from lab.hosts.site import Host, Names, Site, SiteError, lacks_route_out

ROOT = Path(__file__).resolve().parent.parent.parent
BATCH = 12
"""Hosts booted at once; more only fight over the cores."""


class LabError(Exception):
    """The command cannot go on; the message says what, where, why and what to do."""


_began = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - _began:6.1f}s] lab: {text}", file=sys.stderr, flush=True)


# --- artifacts and the plan -----------------------------------------------------------------------


def build(*names: str) -> list[Path]:
    """Folders of the named artifacts, built if need be; `OPSTELLA_ARTIFACT_<NAME>` names one by hand."""
    given = {n: os.environ.get(f"OPSTELLA_ARTIFACT_{n.upper().replace('-', '_')}") for n in names}
    wanted = [n for n in names if not given[n]]
    if wanted:
        result = subprocess.run(
            [ROOT / "lab/toolchain/build", "--parallel", "2", *wanted], stdout=subprocess.PIPE, text=True, check=False
        )
        if result.returncode:
            raise LabError(f"the lab needs {', '.join(wanted)}, which could not be built; see above")
        given.update(zip(wanted, result.stdout.split("\n"), strict=False))
    return [Path(str(given[n])) for n in names]


def plan_of(config_file: Path) -> dict[str, Any]:
    """The plan's JSON for a stack file; a `.json` file is taken as such a plan."""
    if config_file.suffix == ".json":
        return json.loads(config_file.read_text())
    result = subprocess.run(
        [sys.executable, "-m", "plan", "--config-file", str(config_file)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if result.returncode:
        raise LabError(f"no lab without a plan; `python -m plan --config-file {config_file}` says:\n{result.stderr.strip()}")
    return json.loads(result.stdout)


def stack_file(config_file: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(config_file.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise LabError(f"the stack file {config_file} cannot be read: {error}; name one by --config-file") from None


def write_stack_file(path: Path, document: dict[str, Any], values: dict[str, Any]) -> None:
    """Writes `document` with `values` over its settings; readable by root only.

    What the engine itself wrote into the file before (the salt of its encryption) stays.
    """
    merged = overlay.merge(document, {"config": values})
    if path.exists():
        merged |= {key: value for key, value in stack_file(path).items() if key != "config"}
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as stream:
        stream.write(f"# Written by lab/lab up: {path.name} of the checkout with the lab's own settings over it.\n")
        yaml.safe_dump(merged, stream, sort_keys=False, allow_unicode=True)


def sha256_sums(folders: list[Path]) -> dict[str, str]:
    """File name to SHA-256 sum of every file directly in the folders; the first of a name counts."""
    sums: dict[str, str] = {}
    for folder in folders:
        for file in sorted(p for p in folder.iterdir() if p.is_file()):
            if file.name not in sums:
                with open(file, "rb") as stream:
                    sums[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return sums


# --- one lab at a time ------------------------------------------------------------------------------


@contextlib.contextmanager
def exclusively(names: Names) -> Iterator[None]:
    """Holds the lab's lock; refuses at once while another command changes the same lab."""
    with open(names.lock, "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise LabError(
                f"another lab/lab command is changing this lab (process {holder}); wait for it to end. A second lab "
                "beside this one needs a name and a folder of its own: OPSTELLA_LAB_NAME=other lab/lab up"
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def owner(names: Names) -> dict[str, Any] | None:
    """Who has the lab up under this name; None when nobody has."""
    try:
        return json.loads(Path(names.owner).read_text())
    except (OSError, ValueError):
        return None


def site_that_is_up(names: Names) -> Site:
    try:
        plan = json.loads(Path(names.folder, "plan.json").read_text())
    except (OSError, ValueError):
        raise LabError(f"no lab is up in {names.folder}; start one: lab/lab up") from None
    return Site.from_plan(plan)


# --- commands ---------------------------------------------------------------------------------------


def up(names: Names, config_file: Path, bare: bool, only: list[str]) -> None:
    """Builds the lab, or starts what is dead in it."""
    there = owner(names)
    if there and there["folder"] != names.folder:
        raise LabError(
            f"a lab called {names.name!r} is already up, with its files in {there['folder']} (stack {there['stack']}, "
            f"checkout {there['checkout']}). End it: OPSTELLA_LAB={there['folder']} lab/lab down; or give this one "
            "another name: OPSTELLA_LAB_NAME=other OPSTELLA_LAB=/var/lib/other-lab lab/lab up"
        )
    fresh = there is None
    if fresh and (kernel.namespaces(names.operator) or Path(names.folder, "hosts").exists()):
        say("clearing what an interrupted lab left behind")
        down(names, quiet=True)
    folder = Path(names.folder)
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not (folder / "id_ed25519").exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "opstella-lab", "-f", str(folder / "id_ed25519"))

    # The plan first: it needs neither media nor host keys, and its faults are the cheapest to find.
    document: dict[str, Any] = {}
    target = folder / config_file.name
    if config_file.suffix == ".json":
        plan = plan_of(config_file)
    else:
        document = stack_file(config_file)
        draft = folder / f"draft/{config_file.name}"
        draft.parent.mkdir(exist_ok=True)
        write_stack_file(draft, document, overlay.access(str(folder / "id_ed25519")))
        plan = plan_of(draft)
        shutil.rmtree(draft.parent)
    if only:
        plan["hosts"] = [h for h in plan["hosts"] if h["name"] in only or h["role"] == "bastion"]
    site = Site.from_plan(plan)
    if there and Path(folder, "plan.json").exists():
        was = site_that_is_up(names)
        if (was.hosts, was.subnets) != (site.hosts, site.subnets):
            raise LabError(
                f"the lab that is up (stack {was.stack}, {len(was.hosts)} hosts) is not the one of {config_file} "
                f"(stack {site.stack}, {len(site.hosts)} hosts). End it first: lab/lab down"
            )

    artifacts = ["image", "debs", "services"] + ([] if bare else ["media", "charts", "gitlab"])
    found = dict(zip(artifacts, build(*artifacts), strict=True))
    image = found["image"] / "rootfs"
    machines, services = Machines(names, site, image), Services(names, site)
    media = [found[n] for n in ("media", "gitlab") if n in found]
    folders = {"debian": [found["debs"]], "artifacts": media, "charts": [found["charts"]] if "charts" in found else []}

    Path(names.owner).write_text(
        json.dumps({"folder": names.folder, "stack": site.stack, "checkout": str(ROOT), "pid": os.getpid()}) + "\n"
    )
    try:
        (folder / "plan.json").write_text(json.dumps(plan, indent=2) + "\n")
        if fresh:
            limits.make_room(len(site.hosts))
        machines.make_operator()
        services.start(folders, image, found["services"] / "layer")
        dead = [h for h in site.hosts if machines.leader(h) is None]
        if dead:
            say(f"starting {len(dead)} of {len(site.hosts)} hosts: {', '.join(h.name for h in dead)}")
        for i in range(0, len(dead), BATCH):
            for host in dead[i : i + BATCH]:
                if machines.pids(host):
                    machines.stop(host)
                machines.start(host)
            machines.wait(dead[i : i + BATCH])
        services.wait({"http", "chronyd", "dnsmasq"})
        machines.write_ssh_files()
        assert_sealed(names, site)
        if document:
            clusters = sorted({h.cluster for h in site.hosts if h.role in ("master", "worker", "nfs") and h.cluster})
            # The bastion's key is given, as from a user who knows it; the others are recorded on first contact.
            pinned = {site.bastion.name: machines.host_key(site.bastion)}
            values = overlay.merge(
                overlay.access(str(folder / "id_ed25519")), overlay.environment(clusters, pinned, sha256_sums(media))
            )
            write_stack_file(target, document, values)
            planned = plan_of(target)
            if not only and [(h["name"], h["address"]) for h in planned["hosts"]] != [
                (h.name, str(h.address)) for h in site.hosts
            ]:
                raise LabError(f"{target} plans other hosts than {config_file}; this is a fault of lab/hosts/overlay.py")
    except BaseException:
        if fresh:
            say("failed; taking down what was started")
            consoles = {
                h.name: log.read_text(errors="replace")[-1500:]
                for h in site.hosts
                if (log := machines.folder(h) / "console.log").exists() and not machines.pids(h)
            }
            down(names, quiet=True)
            for name, text in consoles.items():
                say(f"the end of {name}'s console was:\n{text}")
        raise
    say(f"up: {len(site.hosts)} hosts of {site.stack}, all answer SSH. lab/lab status shows them, lab/lab ssh NAME logs in")
    if document:
        say(f"stack file: {target}")


def assert_sealed(names: Names, site: Site) -> None:
    """Raises unless every interface of every namespace has its other end in the lab, and no route leads out."""
    faults = lacks_route_out(kernel.ip_json("-n", names.operator, "route", "show", "table", "all"), site)
    allowed = {"lo", *(s.bridge for s in site.subnets), *(h.link for h in site.hosts)}
    for link in kernel.ip_json("-n", names.operator, "link", "show"):
        if link["ifname"] not in allowed:
            faults.append(f"{names.operator} has an interface {link['ifname']} that the lab did not make")
    for host in site.hosts:
        name = names.namespace(host.name)
        if name in kernel.namespaces(name):
            extra = {link["ifname"] for link in kernel.ip_json("-n", name, "link", "show")} - {"lo", "eth0"}
            # A host may make interfaces inside itself (CNI, dummies); only a link to elsewhere leads out.
            linked = [
                link["ifname"]
                for link in kernel.ip_json("-n", name, "link", "show")
                if link["ifname"] in extra and "link_netnsid" in link
            ]
            faults += [f"{name} has a link {one} into another namespace" for one in linked]
    if faults:
        raise LabError("the lab is not sealed: " + "; ".join(faults) + ". Take it down: lab/lab down")


def status(names: Names, as_json: bool) -> int:
    """Prints every host and service; 0 when all of it runs."""
    site = site_that_is_up(names)
    machines, services = Machines(names, site), Services(names, site)
    answering = machines.answering(list(site.hosts)) if kernel.namespaces(names.operator) else set()
    measured = usage.measure({host.name: machines.pids(host) for host in site.hosts})
    rows = []
    for host in site.hosts:
        state = "up" if host.name in answering else ("no ssh" if measured[host.name] else "down")
        with contextlib.suppress(KernelError):
            if measured[host.name] and not machines.link_is_up(host):
                state = "cut"
        rows.append(
            {"host": host.name, "role": host.role, "address": str(host.address), "state": state}
            | usage.total(measured[host.name]).row()
        )
    running = services.running()
    served = {name: name in running for name in ("http", "chronyd", "dnsmasq")}
    everything = [process for processes in measured.values() for process in processes]
    programs = {name: used.row() for name, used in usage.by_program(everything).items()}
    if as_json:
        print(json.dumps({"stack": site.stack, "hosts": rows, "services": served, "programs": programs}, indent=2))
    else:
        print("\n".join(status_table(site, rows, programs, usage.total(everything).row())))
        print(f"services at {site.services}: " + ", ".join(f"{n} {'up' if ok else 'DOWN'}" for n, ok in served.items()))
    return 0 if all(row["state"] == "up" for row in rows) and all(served.values()) else 1


def status_table(
    site: Site, rows: list[dict[str, Any]], programs: dict[str, dict[str, Any]], total: dict[str, Any]
) -> Iterator[str]:
    """Lines of `lab/lab status`: each host, the sums by role, and what each kind of program uses on all hosts."""
    width = max(len(host.name) for host in site.hosts)

    def figures(used: dict[str, Any]) -> str:
        return (
            f"{used['processes']:>9} {used['memory_mb']:>6} MB {used['cpu_seconds']:>8.0f} s {used['cpu_percent']:>6.1f} %"
        )

    head = f"{'processes':>9} {'memory':>9} {'CPU':>10} {'now':>8}"
    yield f"{'host':<{width}} {'role':<8} {'address':<15} {'state':<6} {head}"
    for row in rows:
        yield f"{row['host']:<{width}} {row['role']:<8} {row['address']:<15} {row['state']:<6} {figures(row)}"
    yield ""
    for role in dict.fromkeys(row["role"] for row in rows):
        group = [row for row in rows if row["role"] == role]
        used = {key: sum(row[key] for row in group) for key in total}
        yield f"{f'{len(group)} {role}':<{width + 32}}{figures(used)}"
    yield f"{f'{len(rows)} hosts':<{width + 32}}{figures(total)}"
    yield ""
    for name, used in programs.items():
        if used["memory_mb"] >= 10 or used["cpu_percent"] >= 0.5:
            yield f"{name:<{width + 32}}{figures(used)}"


def leftovers(names: Names) -> dict[str, list[str]]:
    """What of the lab is still on this machine, by kind."""
    spaces = lab_namespaces(names)
    return {
        "processes": [f"{pid} ({name})" for pid, name in kernel.processes_in(spaces, names.cgroup).items()],
        "mounts": kernel.mounts_under(names.folder),
        "namespaces": spaces,
        "cgroups": kernel.cgroups(names.cgroup),
        "files": [p for p in (names.folder, f"/etc/netns/{names.operator}", names.owner) if os.path.lexists(p)],
    }


def lab_namespaces(names: Names) -> list[str]:
    """Network namespaces of this lab: the operator's, its hosts' and, without a plan, all of its prefix but other labs'."""
    found = kernel.namespaces(f"{names.name}-")
    with contextlib.suppress(LabError, SiteError):
        mine = {names.operator, *(names.namespace(h.name) for h in site_that_is_up(names).hosts)}
        return [name for name in found if name in mine]
    others = (path.name.removesuffix("-lab.json") for path in Path(names.owner).parent.glob(f"{names.name}-*-lab.json"))
    theirs = tuple(f"{other}-" for other in others)
    return [name for name in found if not name.startswith(theirs)]


def down(names: Names, quiet: bool = False) -> None:
    """Ends everything, whatever is left of it, and proves it."""
    there = owner(names)
    if there and there["folder"] != names.folder:
        raise LabError(
            f"the lab called {names.name!r} has its files in {there['folder']}, not in {names.folder}. "
            f"End it: OPSTELLA_LAB={there['folder']} OPSTELLA_LAB_NAME={names.name} lab/lab down"
        )
    spaces = lab_namespaces(names)
    killed = len(kernel.processes_in(spaces, names.cgroup))
    kernel.kill_all(spaces, names.cgroup)
    machine_names = {*spaces, *(names.namespace(p.name) for p in Path(names.folder).glob("hosts/*"))}
    mounts = kernel.mounts_under(names.folder)
    locks = kernel.nspawn_locks(mounts)
    kernel.unmount_under(names.folder)
    for space in spaces:
        with contextlib.suppress(KernelError):
            run("ip", "netns", "del", space)
    shutil.rmtree(f"/etc/netns/{names.operator}", ignore_errors=True)
    for name in machine_names:
        for path in Path("/run/systemd/nspawn").glob(f"*/{name}"):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
    for lock in locks:
        lock.unlink(missing_ok=True)
    for _ in range(20):
        kernel.remove_cgroup(names.cgroup)
        if not kernel.cgroups(names.cgroup):
            break
        time.sleep(0.1)
    if not kernel.mounts_under(names.folder):
        # Never through a mount: an overlay's lower layers are the cache's.
        shutil.rmtree(names.folder, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(names.owner)
    limits.give_back(unless=lambda: any(Path("/run").glob("*-lab.json")))
    left = {kind: items for kind, items in leftovers(names).items() if items}
    if left:
        lines = "\n".join(f"  {kind}: {', '.join(items)}" for kind, items in left.items())
        raise LabError(f"these are still there after lab/lab down:\n{lines}\nRun it again; a mount that stays busy is "
                       "held by a process that `fuser -vm PATH` names.")  # fmt: skip
    if not quiet:
        say(
            f"down: ended {killed} processes, {len(mounts)} mounts, {len(spaces)} namespaces. Left behind: "
            "0 processes, 0 mounts, 0 namespaces, 0 cgroups, 0 files"
        )


def driver_environment(names: Names) -> dict[str, str]:
    """Environment of what drives the stack: its state and its passphrase lie in the lab's folder and go with it."""
    if not kernel.namespaces(names.operator):
        raise LabError(f"no lab is up under the name {names.name!r}; start one: lab/lab up")
    state, passphrase = Path(names.folder, "state"), Path(names.folder, "passphrase")
    state.mkdir(mode=0o700, exist_ok=True)
    if not passphrase.exists():
        descriptor = os.open(passphrase, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as stream:
            stream.write(secrets.token_urlsafe(24) + "\n")
    return {
        **os.environ,
        "PULUMI_BACKEND_URL": f"file://{state}",
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(passphrase),
        "PULUMI": str(ROOT / "lab/toolchain/pulumi"),
    }


def run_inside(names: Names, command: list[str]) -> int:
    """Runs a command in the operator's namespace, in place of this process."""
    environment = driver_environment(names)
    os.execvpe("ip", ["ip", "netns", "exec", names.operator, *command], environment)


def stack_name(names: Names) -> str:
    """Name of the stack in the engine: the plan's, without the project."""
    return site_that_is_up(names).stack.rpartition("/")[2]


def pulumi(names: Names, arguments: list[str]) -> int:
    """Runs the engine on the lab's stack; commands that take a stack get its name and its file."""
    stack, engine = stack_name(names), str(ROOT / "lab/toolchain/pulumi")
    if arguments[:1] in (["up"], ["preview"], ["refresh"], ["destroy"], ["config"]):
        arguments = [*arguments, "--stack", stack, "--config-file", f"{names.folder}/Pulumi.{stack}.yaml"]
    elif arguments == ["stack"] or arguments[:1] == ["cancel"] or arguments[:2] in (["stack", "output"], ["stack", "export"]):
        arguments = [*arguments, "--stack", stack]
    os.chdir(ROOT)
    if not list(Path(names.folder, "state").glob(f".pulumi/stacks/*/{stack}.json*")):
        # In a folder of its own: `stack init` writes its salt beside Pulumi.yaml, and the checkout stays clean.
        project = Path(names.folder, "project")
        project.mkdir(exist_ok=True)
        shutil.copy(ROOT / "Pulumi.yaml", project)
        made = subprocess.run(
            [engine, "stack", "init", stack, "--no-select", "--non-interactive"],
            cwd=project, env=driver_environment(names), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode:
            raise LabError(f"the stack {stack} could not be made in {names.folder}/state: {made.stderr.strip()}")
    return run_inside(names, [engine, *arguments])


def verify(names: Names, module: str, arguments: list[str]) -> int:
    """Runs checks from outside, `module`, on the lab's stack."""
    stack = stack_name(names)
    os.chdir(ROOT)
    file = f"{names.folder}/Pulumi.{stack}.yaml"
    return run_inside(names, [sys.executable, "-m", module, "--stack", stack, "--config-file", file, *arguments])


def on_hosts(names: Names, wanted: list[str], act: Callable[[Machines, Host], None], done: str) -> None:
    site = site_that_is_up(names)
    (image,) = build("image")
    machines = Machines(names, site, image / "rootfs")
    for host in [site.host(name) for name in wanted]:
        act(machines, host)
        say(f"{host.name} {done}")


def start(machines: Machines, host: Host) -> None:
    if machines.leader(host) is None:
        if machines.pids(host):
            machines.stop(host)
        machines.start(host)
    machines.wait([host])


def wipe(machines: Machines, host: Host) -> None:
    machines.erase(host)
    start(machines, host)
    machines.write_ssh_files()


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="lab/lab", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    one = commands.add_parser("up", help="build the lab of a stack, or start what is dead in it")
    one.add_argument("--config-file", type=Path, help="stack file, or a plan as JSON (default: Pulumi.$STACK.yaml)")
    one.add_argument("--bare", action="store_true", help="without installation media and charts")
    one.add_argument("--only", default="", metavar="NAME,…", help="only these hosts, and the bastion")
    one = commands.add_parser("status", help="hosts and services; exit status 0 when all run")
    one.add_argument("--json", action="store_true")
    commands.add_parser("down", help="end everything and prove that nothing is left")
    for name, text in (
        ("stop", "cut a host's power (its disk stays)"),
        ("start", "boot a stopped host"),
        ("wipe", "put an empty machine in a host's place, with a host key of its own, and boot it"),
        ("cut", "pull a host's network cable"),
        ("heal", "plug it in again"),
    ):
        one = commands.add_parser(name, help=text)
        one.add_argument("hosts", nargs="+", metavar="HOST")
    one = commands.add_parser("exec", help="run a command as root on a host, as from its console")
    one.add_argument("host")
    one.add_argument("rest", nargs=argparse.REMAINDER)
    one = commands.add_parser("ssh", help="log in to a host as ops through the bastion, or run a command there")
    one.add_argument("host")
    one.add_argument("rest", nargs=argparse.REMAINDER)
    one = commands.add_parser("pulumi", help="run the engine on the lab's stack: preview, up, stack output, …")
    one.add_argument("rest", nargs=argparse.REMAINDER)
    one = commands.add_parser("verify", help="run the checks from outside on the lab's stack")
    one.add_argument("rest", nargs=argparse.REMAINDER)
    one = commands.add_parser("verify-network", help="prove the network contract on the lab's stack, by packets between all hosts")
    one.add_argument("rest", nargs=argparse.REMAINDER)
    one = commands.add_parser("run", help="run a command in the operator's network namespace")
    one.add_argument("rest", nargs=argparse.REMAINDER)
    return top


def main(arguments: list[str]) -> int:
    options = parser().parse_args(arguments)

    def interrupted(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    try:
        names = Names.from_environment()
        if os.geteuid() != 0:
            raise LabError("the lab makes namespaces and mounts, so it needs root; run it by sudo -E")
        rest = [a for i, a in enumerate(getattr(options, "rest", [])) if not (i == 0 and a == "--")]
        match options.command:
            case "status":
                return status(names, options.json)
            case "run":
                return run_inside(names, rest or ["bash"])
            case "pulumi":
                return pulumi(names, rest)
            case "verify":
                return verify(names, "verify", rest)
            case "verify-network":
                return verify(names, "verify.network", rest)
            case "ssh":
                site_that_is_up(names).host(options.host)
                return run_inside(names, ["ssh", "-F", f"{names.folder}/ssh_config", options.host, *rest])
            case "exec":
                site = site_that_is_up(names)
                return Machines(names, site).execute(site.host(options.host), rest or ["bash"])
        signal.signal(signal.SIGTERM, interrupted)
        signal.signal(signal.SIGHUP, interrupted)
        with exclusively(names):
            match options.command:
                case "up":
                    file = options.config_file or ROOT / f"Pulumi.{os.environ.get('STACK') or 'standalone'}.yaml"
                    up(names, file, options.bare, [name for name in options.only.split(",") if name])
                case "down":
                    down(names)
                case "stop":
                    on_hosts(names, options.hosts, Machines.stop, "is off")
                case "start":
                    on_hosts(names, options.hosts, start, "is up")
                case "wipe":
                    on_hosts(names, options.hosts, wipe, "is a new machine, and empty")
                case "cut":
                    on_hosts(names, options.hosts, lambda m, h: m.set_link(h, False), "is cut off")
                case "heal":
                    on_hosts(names, options.hosts, lambda m, h: m.set_link(h, True), "is connected")
        return 0
    except (LabError, SiteError, KernelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
