"""The whole plan: names, certificates, totals, media, what hosts are told, warnings, and the command that prints it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from config.errors import ConfigurationError
from plan import dns, hosts, media, pki, proxies, sizing, versions
from plan.plan import Plan, as_data
from tests.config import material
from tests.plan.stacks import DOMAIN, examples, plan, stacks

ROOT = Path(__file__).resolve().parents[2]

# "Domain" of the reference, in its order.
STANDALONE_NAMES = (
    "opstella", "opstella-backend", "opstella-clear-session", "opstella-idp",
    "argocd", "defectdojo", "gitlab", "headlamp", "harbor",
    "sonarqube", "vault",
    "loki", "grafana", "tempo", "mimir",
    "minio", "minio-api",
)  # fmt: skip
MULTICLUSTER_NAMES = (
    "opstella", "opstella-backend", "opstella-clear-session", "opstella-idp",
    "argocd-dev", "argocd-prd", "defectdojo", "gitlab", "headlamp", "harbor",
    "sonarqube", "vault",
    "loki", "grafana", "tempo", "mimir",
    "minio-dso", "minio-dso-api", "minio-obs", "minio-obs-api",
)  # fmt: skip


def total(*rows: tuple[int, int, int, int]) -> sizing.Total:
    """Rows of the reference's "Specification" (number of nodes, cores, memory, disk), multiplied."""
    return sizing.Total(
        nodes=sum(r[0] for r in rows),
        cpu=sum(r[0] * r[1] for r in rows),
        memory_gb=sum(r[0] * r[2] for r in rows),
        disk_gb=sum(r[0] * r[3] for r in rows),
    )


# Sizing


def test_standalone_totals() -> None:
    stack = plan()
    rows = ((1, 1, 2, 20), (1, 1, 2, 20), (1, 1, 2, 100), (1, 2, 4, 40), (1, 2, 4, 40), (5, 4, 10, 40))
    assert stack.total == total(*rows) == sizing.Total(nodes=10, cpu=27, memory_gb=64, disk_gb=420)
    told = as_data(stack)["sizing"]
    assert set(told.pop("tools")) == {"standalone"}
    assert told == {
        "true": {"nodes": 10, "cpu": 27, "memory_gb": 64, "disk_gb": 420},
        "printed_by_the_reference": {"nodes": 10, "cpu": 11, "memory_gb": 24, "disk_gb": 260},
    }
    assert any("27 CPU, 64 GB memory" in w and "prints 10, 11, 24 and 260" in w for w in stack.warnings)


def test_multicluster_totals() -> None:
    stack = plan("multicluster")
    machines = (
        (1, 1, 2, 20),
        (4, 1, 2, 20),
        (1, 1, 2, 500),
        (1, 1, 2, 500),
        (1, 1, 2, 100),
        (1, 1, 2, 100),
        (1, 4, 8, 40),
    )
    masters, workers = 4 * ((3, 2, 4, 20),), (*(3 * ((3, 4, 8, 40),)), (5, 6, 8, 40))
    assert stack.total == total(*machines, *masters, *workers)
    assert stack.total == sizing.Total(nodes=36, cpu=103, memory_gb=186, disk_gb=2140)
    # The printed totals add one node of each row; so do ours, with the figures taken for the empty DEV row.
    once = total(*((1, *row[1:]) for row in (*machines, *masters, *workers)))
    printed = sizing.PRINTED["multicluster"]
    assert (once.cpu, once.memory_gb, once.disk_gb) == (printed.cpu, printed.memory_gb, printed.disk_gb)
    assert as_data(stack)["sizing"]["printed_by_the_reference"] == {
        "nodes": 36, "cpu": 36, "memory_gb": 68, "disk_gb": 1520,
    }  # fmt: skip


def test_custom_stacks_have_no_printed_total() -> None:
    stack = plan("custom", clusters={"one": {"subnet": "10.0.0.0/24"}})
    assert as_data(stack)["sizing"]["printed_by_the_reference"] is None
    assert not any(w.startswith("sizing") for w in stack.warnings)


# DNS


@pytest.mark.parametrize(
    ("architecture", "names", "count"), [("standalone", STANDALONE_NAMES, 17), ("multicluster", MULTICLUSTER_NAMES, 20)]
)
def test_services_have_the_references_names(architecture: str, names: tuple[str, ...], count: int) -> None:
    services = [r.name for r in plan(architecture).records if r.service != "kubernetes-api"]
    assert sorted(services) == sorted(f"{name}.{DOMAIN}" for name in names)
    assert len(services) == count


def test_names_lead_to_the_cluster_that_serves_them() -> None:
    stack = plan("multicluster")
    balancer = {c.name: c.entrance for c in stack.topology.clusters}
    led = {r.name.removesuffix(f".{DOMAIN}"): r.address for r in stack.records}
    elsewhere = {
        "gitlab": stack.topology.gitlab.address,
        "argocd-dev": balancer["dev"],
        "argocd-prd": balancer["prd"],
        **dict.fromkeys(("loki", "grafana", "tempo", "mimir", "minio-obs", "minio-obs-api"), balancer["observability"]),
        **{f"api.{name}": address for name, address in balancer.items()},
    }
    first = dict.fromkeys((n for n in MULTICLUSTER_NAMES if n not in elsewhere), balancer["devsecops"])
    assert led == elsewhere | first


@examples(20)
@given(stacks())
def test_every_name_stands_once_and_leads_into_the_stack(stack: Plan) -> None:
    names = [r.name for r in stack.records]
    assert len(set(names)) == len(names)
    ways_in = {stack.topology.gitlab.address, *(c.entrance for c in stack.topology.clusters)}
    assert {r.address for r in stack.records} == ways_in
    assert all(name.endswith(f".{DOMAIN}") and len(name) <= 253 for name in names)
    assert sum(r.service == "kubernetes-api" for r in stack.records) == len(stack.topology.clusters)


def test_a_service_can_be_renamed() -> None:
    (record,) = (r for r in plan(domains={"keycloak": "login"}).records if r.service == "keycloak")
    assert record.name == f"login.{DOMAIN}"


# Certificates


def test_authorities_live_fifteen_and_ten_years() -> None:
    tree = plan().ca
    assert tree.root and tree.intermediate
    assert pki.RSA_BITS == 4096
    # Leap days do not shorten a lifetime: at least the years' days, at most one day more.
    for authority, years in ((tree.root, 15), (tree.intermediate, 10)):
        assert years * 365.25 * 24 <= authority.hours <= years * 366 * 24
    assert tree.root.hours > tree.intermediate.hours
    assert (tree.root.path_length, tree.intermediate.path_length) == (1, None)
    assert (tree.root.common_name, tree.intermediate.common_name) == ("Opstella Root CA", "Opstella Intermediate CA")


def test_gitlabs_certificate_names_it_and_is_renewed_in_time() -> None:
    stack = plan(pki={"leafDays": 90, "organization": "Example"})
    (leaf,) = stack.ca.leaves
    assert leaf.dns_names == (f"gitlab.{DOMAIN}",)
    assert leaf.ip_addresses == (str(stack.topology.gitlab.address),) == ("192.168.72.14",)
    assert (leaf.hours, leaf.renew_hours) == (90 * 24, 30 * 24)
    assert stack.ca.root and stack.ca.root.organization == "Example"


def test_a_provided_certificate_needs_no_leaf(provided: dict[str, Any]) -> None:
    assert plan(tls=provided["tls"]).ca.leaves == ()


def test_a_provided_intermediate_needs_no_authority(provided: dict[str, Any]) -> None:
    tree = plan(pki={"intermediate": provided["intermediate"]}).ca
    assert (tree.root, tree.intermediate) == (None, None)
    assert [leaf.name for leaf in tree.leaves] == ["gitlab"]


@pytest.fixture(scope="module")
def provided(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    names = material.make(tmp_path_factory.mktemp("material"))

    def file(name: str) -> str:
        return f"file:{names[name]}"

    return {
        "tls": {
            "source": "provided",
            "certificate": file("leaf"),
            "privateKey": file("leaf_key"),
            "chain": file("chain"),
        },
        "intermediate": {
            "certificate": file("intermediate"),
            "privateKey": file("intermediate_key"),
            "chain": file("root"),
        },
    }


# Media

FILES = (
    "install.sh",
    "rke2.linux-amd64.tar.gz",
    "sha256sum-amd64.txt",
    "rke2-images-core.linux-amd64.tar.zst",
    "rke2-images-calico.linux-amd64.tar.zst",
    "gitlab-ce_19.1.2-ce.0_amd64.deb",
)


def airgap(*files: str) -> dict[str, Any]:
    return {
        "media": {
            "source": "airgap",
            "artifacts": "https://media.example.com/opstella",
            "chartRepository": "https://charts.example.com",
            "sha256": dict.fromkeys(files, "ab" * 32),
        },
        "gitlab": {"version": "19.1.2"},
    }


@pytest.mark.parametrize("missing", FILES)
def test_airgap_without_a_sum_is_refused(missing: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        plan(**airgap(*(f for f in FILES if f != missing)))
    (problem,) = caught.value.problems
    assert problem.key == "opstella:media.sha256"
    assert f"no SHA-256 sum for {missing}" in problem.what and "https://media.example.com/opstella" in problem.what
    assert f"sha256sum {missing}" in problem.fix


def test_airgap_with_every_sum_is_planned_and_fetches_nothing_from_elsewhere() -> None:
    stack = plan(**airgap(*FILES))
    assert as_data(stack)["artifacts"] == sorted(FILES, key=FILES.index)
    urls = {h.role: media.reachable(h, stack.settings) for h in stack.topology.hosts}
    own = "https://media.example.com/opstella"
    assert urls == {
        "bastion": (), "haproxy": (), "nfs": (),
        "gitlab": (f"{own}/{FILES[-1]}",), "master": (f"{own}/install.sh",), "worker": (f"{own}/install.sh",),
    }  # fmt: skip
    charts = [r for releases in stack.releases.values() for r in releases if not r.chart.startswith("charts/")]
    # A chart of this project lies with it and is fetched from nowhere.
    assert {r.repository for r in charts if r.repository} == {"https://charts.example.com"}
    assert all(r.chart.startswith("charts/") for r in charts if r.repository is None)


def test_every_kind_of_problem_is_reported_at_once() -> None:
    sections = airgap(*FILES[1:]) | {
        "tools": {"jenkins": {"enabled": True}},
        "clusters": {"standalone": {"workers": {"nodeLabels": {"worker-9": {}}}}},
    }
    with pytest.raises(ConfigurationError) as caught:
        plan(**sections)
    assert {p.key for p in caught.value.problems} == {
        "opstella:media.sha256", "opstella:tools.jenkins", "opstella:clusters.standalone.workers.nodeLabels",
    }  # fmt: skip
    text = str(caught.value)
    assert text.startswith("configuration of opstella/standalone: 3 problems; nothing was changed.")
    assert "there is no tool 'jenkins'" in text and "cert-manager" in text


def test_an_unknown_tool_is_reported_once_for_all_clusters() -> None:
    with pytest.raises(ConfigurationError) as caught:
        plan("multicluster", tools={"jenkins": {}})
    (problem,) = caught.value.problems
    assert problem.key == "opstella:tools.jenkins"


def test_versions_are_pinned_where_the_user_names_none() -> None:
    settings = plan().settings
    assert media.rke2_version(settings) == versions.RKE2.version
    assert media.gitlab_version(settings) == versions.GITLAB.version
    named = plan(kubernetes={"version": "v1.35.1+rke2r2"}, gitlab={"version": "18.9.0", "edition": "ee"}).settings
    assert (media.rke2_version(named), media.gitlab_version(named)) == ("v1.35.1+rke2r2", "18.9.0")
    assert media.gitlab_packages(named) == {
        "debian": "gitlab-ee_18.9.0-ee.0_amd64.deb", "rhel": "gitlab-ee-18.9.0-ee.0.el9.x86_64.rpm",
    }  # fmt: skip


# What hosts are told


def required(phase: str) -> set[str]:
    """The values without which a phase's script gives up."""
    text = (ROOT / "scripts" / f"{phase}.sh").read_text()
    found = {name for line in re.findall(r"^  require(?:_text)? (.+)$", text, re.M) for name in line.split()}
    assert found, f"{phase}.sh requires nothing"
    return found


def test_preflight_and_prepare_are_sent_what_they_require() -> None:
    stack = plan()
    for host in stack.topology.hosts:
        assert required("preflight") <= set(hosts.preflight(host, stack.settings, stack.topology, stack.stack))
        sent = hosts.prepare(host, stack.contract, stack.stack)
        # The component adds the bundle, which holds certificates that only the deployment makes.
        assert required("prepare") <= {*sent, "ca_bundle"}


def test_preflight_holds_a_machine_to_the_plan() -> None:
    stack = plan(machines={"sizeCheck": "warning"}, time={"servers": ["10.0.0.1"], "maxSkewSeconds": 12})
    values = hosts.preflight(stack.topology.clusters[0].workers[1], stack.settings, stack.topology, stack.stack)
    wanted = {
        "name": "worker-2", "role": "worker", "identity": "opstella/standalone/standalone/worker",
        "address": "192.168.72.17", "cpu": 4, "memory_mb": 10240, "disk_gb": 40, "size_check": "warning",
        "max_skew_seconds": 12, "ports": ["tcp/10250", "tcp/30080", "tcp/30443"],
    }  # fmt: skip
    assert {name: values[name] for name in wanted} == wanted
    assert hosts.identity(stack.topology.bastion, stack.stack) == "opstella/standalone/shared/bastion"


@examples(20)
@given(stacks())
def test_hosts_file_names_the_host_gitlab_and_its_clusters_api(stack: Plan) -> None:
    for host in stack.topology.hosts:
        lines = [line.split() for line in hosts.hosts_file(host, stack.settings, stack.topology).splitlines()]
        expected = {(str(host.address), host.name), (str(stack.topology.gitlab.address), f"gitlab.{DOMAIN}")}
        for cluster in stack.topology.clusters:
            if cluster.name == host.cluster:
                expected.add((str(cluster.entrance), dns.api_name(stack.settings, cluster.name)))
        assert {tuple(line) for line in lines} == expected and len(lines) == len(expected)


def test_nodes_alone_get_kernel_settings_and_only_workers_an_nfs_client() -> None:
    stack = plan(kubernetes={"cisProfile": True})
    for host in stack.topology.hosts:
        values = hosts.prepare(host, stack.contract, stack.stack)
        node = host.role in ("master", "worker")
        assert bool(values["modules"]) == values["cis"] == node
        assert bool(values["sysctl"]) == (node or host.role == "bastion")
        for family, package in (("debian", "nfs-common"), ("rhel", "nfs-utils")):
            packages = values[f"packages_{family}"]
            assert isinstance(packages, list) and (package in packages) == (host.role == "worker")
            assert {"chrony", "nftables", "curl"} <= set(packages)


def test_a_firewall_left_out_leaves_no_ruleset() -> None:
    stack = plan(firewall={"enabled": False})
    assert {hosts.prepare(h, stack.contract, "s")["ruleset"] for h in stack.topology.hosts} == {""}


def test_the_stacks_own_networks_and_names_bypass_the_proxy() -> None:
    stack = plan("multicluster", proxy={"http": "http://proxy.example.com:3128", "noProxy": [".svc", ".corp"]})
    entries = proxies.no_proxy(stack.settings).split(",")
    assert len(set(entries)) == len(entries)
    networks = {f"192.168.{n}.0/24" for n in (72, 73, 74, 75)} | {"172.16.72.0/22", "172.16.76.0/22", "127.0.0.0/8"}
    assert set(entries) == networks | {".svc", ".cluster.local", f".{DOMAIN}", ".corp"}
    assert proxies.no_proxy(plan().settings) == ""


# Warnings


def test_a_secret_that_nothing_names_is_a_warning() -> None:
    used = {"alerts": {"webhook": "hook"}, "secrets": {"hook": "https://hooks.example.com/x", "old": "x", "older": "y"}}
    assert [w for w in plan(**used).warnings if w.startswith("secrets")] == [
        "secrets: no setting names old, older; name it where it is wanted, or remove it: "
        "pulumi config rm --path opstella:secrets.old"
    ]
    del used["secrets"]["old"], used["secrets"]["older"]
    assert not [w for w in plan(**used).warnings if w.startswith("secrets")]


def test_warnings_of_the_references_own_traps() -> None:
    text = "\n".join(plan("multicluster").warnings)
    for cluster in ("devsecops", "observability", "dev", "prd"):
        assert f"clusters.{cluster}.masters: 4 GB is RKE2's stated minimum" in text
        assert f"clusters.{cluster}.podSubnet: 172.16.72.0/22 has too few /24 blocks" in text
    assert "clusters share one pod network" in text
    assert "single master" not in text
    assert "clusters.standalone.masters: a single master" in "\n".join(plan().warnings)


def test_a_stack_without_traps_has_no_warning() -> None:
    cluster = {"subnet": "10.0.0.0/24", "podSubnet": "10.64.0.0/16", "masters": {"memoryGb": 8}, "nfs": {"diskGb": 300}}
    networks = {"operatorNetworks": ["10.0.0.0/24"]}
    stack = plan("custom", clusters={"one": cluster}, firewall=networks, network={"strict": True})
    assert stack.warnings == ()
    assert any("operatorNetworks is empty" in w for w in plan("custom", clusters={"one": cluster}).warnings)


# As data


@examples(20)
@given(stacks())
def test_data_is_json_and_complete(stack: Plan) -> None:
    data = as_data(stack)
    assert json.loads(json.dumps(data)) == data
    assert [h["name"] for h in data["hosts"]] == [h.name for h in stack.topology.hosts]
    assert {IPv4Address(h["address"]) for h in data["hosts"]} == {h.address for h in stack.topology.hosts}
    assert all(o["origin"] == "reference" or o["why"] for h in data["hosts"] for o in h["inbound"])
    assert data["subnets"] == sorted({str(c.subnet) for c in stack.settings.clusters.values()})


def test_the_same_settings_give_the_same_plan() -> None:
    assert as_data(plan("multicluster")) == as_data(plan("multicluster"))


# The command


def command(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "plan", "--config-file", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


STACK_FILE = """\
config:
  opstella:architecture: standalone
  opstella:domain: devops.example.com
  opstella:ssh: {{privateKey: "file:{key}"}}
  {more}
"""


def test_command_prints_the_plan_without_secrets(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n")
    file = tmp_path / "Pulumi.mine.yaml"
    file.write_text(STACK_FILE.format(key=key, more="opstella:pki: {organization: Example}"))
    run = command(file)
    assert (run.returncode, run.stderr) == (0, "")
    data = json.loads(run.stdout)
    assert data["stack"] == "opstella/mine" and len(data["hosts"]) == 10
    assert data["hosts"][0] | {"inbound": []} == {
        "name": "bastion", "role": "bastion", "cluster": None, "address": "192.168.72.11", "prefix_length": 24,
        "cpu": 1, "memory_gb": 2, "disk_gb": 20, "inbound": [],
    }  # fmt: skip
    assert "c2VjcmV0" not in run.stdout and "PRIVATE KEY" not in run.stdout


def test_command_shows_problems_without_a_trace(tmp_path: Path) -> None:
    file = tmp_path / "Pulumi.mine.yaml"
    file.write_text(STACK_FILE.format(key="k", more="opstella:tools: {jenkins: {}}"))
    run = command(file)
    assert (run.returncode, run.stdout) == (1, "")
    assert "opstella:tools.jenkins: there is no tool 'jenkins'" in run.stderr
    assert "Traceback" not in run.stderr


def test_the_plan_knows_nothing_of_the_engine() -> None:
    """Importing all of it loads no pulumi."""
    program = (
        "import pkgutil, sys, plan, importlib\n"
        "for m in pkgutil.walk_packages(plan.__path__, 'plan.'):\n"
        "    if not m.name.endswith('__main__'): importlib.import_module(m.name)\n"
        "print([m for m in sys.modules if m.split('.')[0].startswith('pulumi')])\n"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
