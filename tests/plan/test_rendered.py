"""Rendered files and node settings, for the reference and for any stack."""

from __future__ import annotations

import base64
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from config.checks import ENCRYPTED
from config.model import Time
from plan import chrony, gitlab, haproxy, nfs, payload, rke2
from plan.plan import Plan
from plan.tools import catalogue, externals
from plan.tools.inputs import tool_inputs
from plan.tools.model import ToolInputs
from tests.plan.stacks import examples, plan, read, stacks

# Everything but what stands below: a stack without logins has little.
NEED_LOGIN = [
    t.name for t in catalogue.TOOLS if t.name not in ("csi-driver-nfs", "cert-manager", "traefik", "keycloak")
]
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def tool_inputs_of(stack: Plan) -> ToolInputs:
    return tool_inputs(stack.settings, stack.topology, stack.topology.clusters[0])


# RKE2


@examples(10)
@given(stacks())
def test_nodes_join_through_the_load_balancer(stack: Plan) -> None:
    for cluster in stack.topology.clusters:
        configs = {h.name: rke2.node_config(cluster, h, stack.settings.kubernetes, "api.x") for h in cluster.nodes}
        url = f"https://{cluster.entrance}:9345"
        assert {name for name, c in configs.items() if "server" not in c} == {cluster.masters[0].name}
        assert {c["server"] for c in configs.values() if "server" in c} <= {url}
        for host in cluster.nodes:
            config = configs[host.name]
            assert (config["node-name"], config["node-ip"]) == (host.name, str(host.address))
            assert dict(entry.split("=", 1) for entry in config.get("node-label", [])) == dict(host.labels)
            taints = [re.fullmatch(r"(.+)=(.*):(\w+)", t) for t in config.get("node-taint", [])]
            assert [m.groups() for m in taints if m] == [(t.key, t.value, t.effect) for t in host.taints]
            assert ("profile" in config) == stack.settings.kubernetes.cis_profile
            assert yaml.safe_load(rke2.to_yaml(config)) == config
            assert "token" not in config


@examples(10)
@given(stacks())
def test_servers_of_a_cluster_agree(stack: Plan) -> None:
    """RKE2 refuses a server whose cluster-wide settings differ from the first one's."""
    for cluster in stack.topology.clusters:
        own = ("node-name", "node-ip", "node-label", "server")
        configs = [
            {k: v for k, v in rke2.node_config(cluster, m, stack.settings.kubernetes, "api.x").items() if k not in own}
            for m in cluster.masters
        ]
        assert all(c == configs[0] for c in configs)
        (first, settings) = configs[0], cluster.settings
        assert first["cni"] == "calico"
        assert first["cluster-cidr"] == str(settings.pod_subnet)
        assert first["service-cidr"] == str(settings.service_subnet)
        assert first["cluster-dns"] == str(settings.service_subnet[10])
        own = [str(h.address) for h in cluster.own if h.role in ("haproxy", "master")]
        assert {str(cluster.entrance), "api.x", *own} == set(first["tls-san"])
        (argument,) = first["kube-controller-manager-arg"]
        mask = int(argument.removeprefix("node-cidr-mask-size="))
        assert 2 ** (mask - settings.pod_subnet.prefixlen) >= len(cluster.nodes), "a pod network for every node"
        assert 2 ** (32 - mask) >= 110, "an address for every pod of a node"


def test_agents_carry_no_setting_of_a_server() -> None:
    stack = plan()
    cluster = stack.topology.clusters[0]
    config = rke2.node_config(cluster, cluster.workers[0], stack.settings.kubernetes, "api.x")
    assert set(config) == {"server", "node-name", "node-ip"}


def test_only_servers_take_the_tokens_of_the_realm() -> None:
    stack = plan()
    cluster = stack.topology.clusters[0]
    assert stack.issuer == "https://opstella-idp.devops.example.com/realms/opstella"
    worker, master = (
        rke2.node_config(cluster, h, stack.settings.kubernetes, "api.x", stack.issuer)
        for h in (cluster.workers[0], cluster.masters[0])
    )
    assert "kube-apiserver-arg" not in worker
    flags = dict(argument.split("=", 1) for argument in master["kube-apiserver-arg"])
    assert {name: value for name, value in flags.items() if name.startswith("oidc-")} == {
        "oidc-issuer-url": stack.issuer,
        "oidc-client-id": "kubernetes",
        "oidc-username-claim": "preferred_username",
        "oidc-username-prefix": "oidc:",
        "oidc-groups-claim": "groups",
        "oidc-groups-prefix": "oidc:",
        "oidc-ca-file": "/etc/rancher/rke2/oidc-ca.crt",
    }
    script = (SCRIPTS / "rke2.sh").read_text(encoding="utf-8")
    assert "CONFIG=/etc/rancher/rke2\n" in script and 'install_text "$CONFIG/oidc-ca.crt"' in script


def test_without_keycloak_nobody_logs_in_with_a_token() -> None:
    stack = plan(tools={"keycloak": {"enabled": False}, **dict.fromkeys(NEED_LOGIN, {"enabled": False})})
    cluster = stack.topology.clusters[0]
    assert stack.issuer is None
    assert rke2.manifests(None) == {}
    config = rke2.node_config(cluster, cluster.masters[0], stack.settings.kubernetes, "api.x", None)
    assert not [argument for argument in config["kube-apiserver-arg"] if argument.startswith("oidc-")]


def test_the_groups_of_the_realm_have_the_rights_that_the_matrix_names() -> None:
    bindings = [b for text in rke2.manifests("https://idp.x/realms/r").values() for b in yaml.safe_load_all(text)]
    assert {b["subjects"][0]["name"]: b["roleRef"]["name"] for b in bindings if b["subjects"]} == {
        "oidc:platform-admins": "cluster-admin", "oidc:developers": "view", "oidc:viewers": "view",
    }  # fmt: skip
    (kubectl,) = (c for c in externals.clients(tool_inputs_of(plan())) if c.client_id == rke2.OIDC_CLIENT)
    assert {group: role.partition(";")[0] for group, role in kubectl.roles.items()} == dict(rke2.GROUP_ROLES)


def test_bindings_of_former_deployments_are_left_without_anybody() -> None:
    """Their names and roles, which cannot be changed, were these; RKE2 applies the file over them."""
    found = [b for text in rke2.manifests("https://idp.x/realms/r").values() for b in yaml.safe_load_all(text)]
    former = {"opstella-platform-admins": "cluster-admin", "opstella-developers": "edit", "opstella-viewers": "view"}
    left = {b["metadata"]["name"]: b for b in found if b["metadata"]["name"] in former}
    assert {name: b["roleRef"]["name"] for name, b in left.items()} == former
    assert all(b["subjects"] == [] for b in left.values())
    assert len({b["metadata"]["name"] for b in found}) == len(found) == 6


def test_etcd_snapshots_every_six_hours_five_kept() -> None:
    stack = plan()
    cluster = stack.topology.clusters[0]
    config = rke2.node_config(cluster, cluster.masters[0], stack.settings.kubernetes, "api.x")
    assert (config["etcd-snapshot-schedule-cron"], config["etcd-snapshot-retention"]) == ("0 */6 * * *", 5)


S3 = {"endpoint": "s3.example.com", "bucket": "etcd", "folder": "a/b", "accessKey": "access", "secretKey": "secret"}


def test_snapshots_are_copied_to_the_store_that_is_named() -> None:
    stack = plan(kubernetes={"etcdSnapshots": {"retention": 7, "s3": S3}}, secrets={"access": ENCRYPTED, "secret": ENCRYPTED})
    cluster, kubernetes = stack.topology.clusters[0], stack.settings.kubernetes
    config = rke2.node_config(cluster, cluster.masters[0], kubernetes, "api.x")
    assert {key: value for key, value in config.items() if key.startswith("etcd-s3")} == {
        "etcd-s3": True, "etcd-s3-endpoint": "s3.example.com", "etcd-s3-bucket": "etcd", "etcd-s3-folder": "a/b",
        "etcd-s3-region": "us-east-1", "etcd-s3-retention": 7,
    }  # fmt: skip
    assert rke2.secrets(cluster.masters[0], kubernetes) == {"etcd-s3-access-key": "access", "etcd-s3-secret-key": "secret"}
    worker = cluster.workers[0]
    assert rke2.secrets(worker, kubernetes) == {}
    assert not [key for key in rke2.node_config(cluster, worker, kubernetes, "api.x") if key.startswith("etcd")]


def test_without_a_store_snapshots_stay_where_they_are() -> None:
    stack = plan()
    cluster = stack.topology.clusters[0]
    config = rke2.node_config(cluster, cluster.masters[0], stack.settings.kubernetes, "api.x")
    assert not [key for key in config if key.startswith("etcd-s3")]
    assert rke2.secrets(cluster.masters[0], stack.settings.kubernetes) == {}


def test_registries_only_with_a_mirror() -> None:
    assert rke2.to_yaml(rke2.registries(read().media)) == ""
    mirror = read(media={"registryMirror": "https://registry.example.com:5000"}).media
    assert yaml.safe_load(rke2.to_yaml(rke2.registries(mirror))) == {
        "mirrors": {"*": {"endpoint": ["https://registry.example.com:5000"]}}
    }


def test_nodes_ask_harbor_first_and_the_users_own_registry_before_it() -> None:
    harbor = yaml.safe_load(rke2.to_yaml(rke2.registries(read().media, "harbor.devops.example.com")))
    assert set(harbor["mirrors"]) == {"docker.io", "quay.io", "ghcr.io", "registry.k8s.io"}
    assert harbor["mirrors"]["quay.io"] == {
        "endpoint": ["https://harbor.devops.example.com"], "rewrite": {"^(.*)$": "quay.io/$1"},
    }  # fmt: skip
    # What a node asks for, and the project of Harbor in which it finds it.
    ((pattern, replacement),) = harbor["mirrors"]["docker.io"]["rewrite"].items()
    assert re.sub(pattern, replacement.replace("$1", r"\1"), "library/busybox") == "docker.io/library/busybox"
    own = read(media={"registryMirror": "https://registry.example.com"}).media
    assert set(rke2.registries(own, "harbor.devops.example.com")["mirrors"]) == {"*"}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "harbor.devops.example.com"),
        ({"kubernetes": {"registryMirror": "none"}}, None),
        ({"media": {"registryMirror": "https://registry.example.com"}}, None),
        ({"tools": {"harbor": {"enabled": False}}}, None),
    ],
)
def test_the_mirror_is_harbor_where_there_is_one_and_it_is_wanted(changes: dict, name: str | None) -> None:
    assert plan(**changes).registry == name


# HAProxy


def led_to(text: str, address: str) -> dict[str, str]:
    """Port to the backend that takes a connection to `address`."""
    fronts = re.findall(r"^frontend \S+\n    bind :(\d+)\n((?:    use_backend .+\n)*)    default_backend (\S+)\n", text, re.M)
    chosen = {port: dict(re.findall(r"use_backend (\S+) if { dst (\S+) }", rules)) for port, rules, _ in fronts}
    return {
        port: next((backend for backend, wanted in chosen[port].items() if wanted == address), default)
        for port, _, default in fronts
    }


@examples(10)
@given(stacks())
def test_load_balancer_leads_each_port_to_its_machines(stack: Plan) -> None:
    for cluster in stack.topology.clusters:
        text = haproxy.configuration(next(b for b in stack.topology.load_balancers if cluster in b.clusters))
        backs = {
            name: set(re.findall(r"    server (\S+) (\S+):(\d+) (?:send-proxy-v2 )?check\b(?! backup)", body))
            for name, body in re.findall(
                r"backend (\S+)\n    balance leastconn\n    option tcp-check\n((?: .+\n)*)", text
            )
        }
        workers, masters = (
            lambda port: {(h.name, str(h.address), port) for h in cluster.workers},
            lambda port: {(h.name, str(h.address), port) for h in cluster.masters},
        )
        led = {port: backs[backend] for port, backend in led_to(text, str(cluster.entrance)).items()}
        assert led == {
            "80": workers("30080"), "443": workers("30443"), "6443": masters("6443"), "9345": masters("9345"),
        }  # fmt: skip
        assert re.findall(r"bind 127\.0\.0\.1:\d+", text) == ["bind 127.0.0.1:8404"]
        assert not re.search(r"(?<!check-)ssl", text), "TLS stays end to end"


@examples(10)
@given(stacks())
def test_the_ingress_is_told_the_clients_addresses_and_served_without_while_it_does_not_ask(stack: Plan) -> None:
    for balancer in stack.topology.load_balancers:
        backends = re.findall(r"^backend (\S+)\n((?:    .+\n)*)", haproxy.configuration(balancer), re.M)
        for name, body in backends:
            servers = re.findall(r"^    server (\S+) (\S+) (.+)$", body, re.M)
            if not name.startswith("ingress"):
                assert "proxy" not in body and "backup" not in body  # neither the API nor the supervisor reads the header
                continue
            first = [s for s in servers if not s[0].endswith("-plain")]
            assert [(f"{n}-plain", address) for n, address, _ in first] == [s[:2] for s in servers if s[0].endswith("-plain")]
            assert all(
                "send-proxy-v2 check port 30443 check-send-proxy check-ssl verify none" in words and "backup" not in words
                for _, _, words in first
            )
            assert all("check backup" in words and "proxy" not in words for n, _, words in servers if n.endswith("-plain"))
            assert "    option allbackups\n" in body
    for cluster in stack.topology.clusters:
        ports = next(r for r in stack.releases[cluster.name] if r.name == "traefik").values["ports"]
        wanted = [str(host.address) for host in cluster.load_balancers]
        for entry in ("web", "websecure"):
            # Their own addresses: from those they connect, whatever virtual one they hold.
            assert ports[entry]["proxyProtocol"] == {"trustedIPs": wanted, "insecure": False}


# NFS


@examples(10)
@given(stacks())
def test_share_is_exported_to_exactly_the_workers(stack: Plan) -> None:
    for cluster in stack.topology.clusters:
        workers = {str(w.address) for w in cluster.workers}
        path, *clients = nfs.exports(cluster).split()
        assert path == cluster.settings.nfs.path
        assert {c.partition("(")[0] for c in clients} == workers and len(clients) == len(workers)
        assert all("rw" in c and "no_root_squash" in c for c in clients)
        ganesha = nfs.ganesha_conf(cluster)
        (listed,) = re.findall(r"Clients = ([^;]+);", ganesha)
        assert set(listed.split(", ")) == workers
        # By default nobody has access, and the listed clients write.
        assert ganesha.index("Access_Type = NONE;") < ganesha.index("CLIENT {") < ganesha.index("Access_Type = RW;")
        assert f"Path = {path};" in ganesha and f"Pseudo = {path};" in ganesha


def test_both_nfs_servers_have_the_fixed_ports() -> None:
    cluster = plan().topology.clusters[0]
    assert "[nfsd]\nport=2049\n" in nfs.nfs_conf() and "[mountd]\nport=33333\n" in nfs.nfs_conf()
    assert "NFS_Port = 2049;" in nfs.ganesha_conf(cluster) and "MNT_Port = 33333;" in nfs.ganesha_conf(cluster)


# GitLab


def ruby(literal: str) -> str:
    """The text of a single-quoted Ruby literal: a backslash escapes a quote or a backslash, and is itself else."""
    body = re.fullmatch(r"'((?:[^'\\]|\\.)*)'", literal, re.DOTALL)
    assert body, f"no single-quoted literal: {literal}"
    return re.sub(r"\\([\\'])", r"\1", body[1])


@examples(200)
@given(st.text() | st.text(alphabet="'\\#{}\n\"a"))
def test_any_text_is_one_ruby_literal(text: str) -> None:
    line = gitlab.render({"nginx['x']": text})
    assert line.startswith("nginx['x'] = ") and line.endswith("\n")
    assert ruby(line.removeprefix("nginx['x'] = ")[:-1]) == text


def test_ruby_literals_of_each_kind() -> None:
    assert gitlab.render({"a": True, "b": False, "c": 7, "d": ["x", "it's"], "external_url": "https://h"}) == (
        "a = true\nb = false\nc = 7\nd = ['x', 'it\\'s']\nexternal_url 'https://h'\n"
    )


@pytest.mark.parametrize(("version", "prefix"), [("19.2.0", "gitlab_rails['nginx']"), ("18.11.3", "nginx")])
def test_nginx_settings_follow_the_version(version: str, prefix: str) -> None:
    text = gitlab.gitlab_rb("gitlab.example.com", version)
    assert f"\n{prefix}['redirect_http_to_https'] = true\n" in text
    assert text.startswith("external_url 'https://gitlab.example.com'\n")
    assert "prometheus['listen_address'] = 'localhost:9090'\n" in text
    assert "gitlab_rails['gitlab_shell_ssh_port'] = 22\n" in text
    assert "password'] = '" not in text


def test_gitlab_logs_people_in_by_the_realm_and_keeps_objects_in_the_store() -> None:
    login = gitlab.SignIn(issuer="https://idp.example.com/realms/opstella", secret="the'client")
    store = gitlab.ObjectStorage(endpoint="https://minio-api.example.com", secret="the-store")
    text = gitlab.gitlab_rb("gitlab.example.com", "19.3.0", login, store)
    assigned = dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)
    provider = assigned["gitlab_rails['omniauth_providers']"]
    assert "'issuer' => 'https://idp.example.com/realms/opstella'" in provider and r"'secret' => 'the\'client'" in provider
    # Where the realm sends people back to is what the client of the realm admits.
    (client,) = [c for c in externals.clients(tool_inputs_of(plan())) if c.client_id == "gitlab"]
    (callback,) = client.redirect_uris
    assert f"'redirect_uri' => '{callback}'".replace("gitlab.devops.example.com", "gitlab.example.com") in provider
    assert "'endpoint' => 'https://minio-api.example.com'" in assigned["gitlab_rails['object_store']['connection']"]
    assert assigned["gitlab_rails['backup_upload_connection']"] == assigned["gitlab_rails['object_store']['connection']"]
    (access,) = [a for a in externals.storage(tool_inputs_of(plan()), first=True) if a.user == "gitlab"]
    made = {bucket.name for bucket in access.buckets}
    used = {ruby(value) for name, value in assigned.items() if "['bucket']" in name or "remote_directory" in name}
    assert used == made - {"gitlab-registry"}  # its container registry is Harbor's business
    # The words are those of GitLab's documentation of the consolidated form.
    kinds = {name.split("'")[5] for name in assigned if "['bucket']" in name}
    assert kinds == {
        "artifacts", "ci_secure_files", "dependency_proxy", "external_diffs", "lfs", "packages", "pages",
        "terraform_state", "uploads",
    }  # fmt: skip
    assert "the-store" not in repr(store) and "client" not in repr(login)


# chrony


def test_chrony_asks_the_stacks_servers_and_answers_nobody() -> None:
    lines = chrony.configuration(Time(servers=("10.0.0.1", "ntp.example.com"))).splitlines()
    assert [line for line in lines if line.startswith("server ")] == [
        "server 10.0.0.1 iburst",
        "server ntp.example.com iburst",
    ]
    assert {"port 0", "cmdport 0", "makestep 1.0 3", "rtcsync"} <= set(lines)


# The payload of the host scripts

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
names = st.from_regex(r"[a-z0-9_]{1,12}", fullmatch=True)


def decoded(rendered: str) -> dict[str, str]:
    assert rendered == "" or rendered.endswith("\n")
    lines = [line.split(" ") for line in rendered.split("\n")[:-1]]
    return {name: base64.b64decode(value, validate=True).decode() for name, value in lines}


@examples(200)
@given(st.dictionaries(names, texts, max_size=4))
def test_payload_keeps_any_text(values: dict[str, str]) -> None:
    assert decoded(payload.render(values)) == values


def test_payload_of_each_kind() -> None:
    values = {"yes": True, "no": False, "number": 30, "list": ["a", "b"], "none": (), "empty": "", "text": "ä\n\n'$x\n"}
    assert decoded(payload.render(values)) == {
        "yes": "true", "no": "false", "number": "30", "list": "a\nb", "none": "", "empty": "", "text": "ä\n\n'$x\n",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["", "Upper", "with space", "dash-ed", "new\nline", "ends\n", "ünicode", "a=b"])
def test_payload_refuses_a_bad_name(name: str) -> None:
    with pytest.raises(ValueError, match="payload name"):
        payload.render({name: "x"})


@pytest.mark.parametrize("items", [["a\nb"], ["a", "b\n"], ("\n",)])
def test_payload_refuses_an_item_that_would_be_two(items: list[str] | tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="payload value 'list': .*line break"):
        payload.render({"list": items})


@pytest.mark.parametrize("value", ["a\0b", ["a\0"]])
def test_payload_refuses_what_no_shell_can_hold(value: str | list[str]) -> None:
    with pytest.raises(ValueError, match="payload value 'text'"):
        payload.render({"text": value})


@examples(8)
@given(st.lists(texts, min_size=10, max_size=40))
def test_host_scripts_read_what_was_rendered(values: list[str]) -> None:
    """By the reader that runs on the hosts, in bash."""
    values = [*values, "", "\n", "trailing\n\n", "ä€𝄞", "'\"$(id)`\\"]
    sent = payload.render({f"v{n}": text for n, text in enumerate(values)})
    program = f". {SCRIPTS / 'lib.sh'}\npayload_read\n" + "".join(
        f"printf '%s\\0' \"${{V[v{n}]}}\" >&\"$REPLY_TO\"\n" for n in range(len(values))
    )
    run = subprocess.run(
        ["bash", "-c", f"declare -A V\nPHASE=test\n{program}"], input=sent.encode(), capture_output=True
    )
    assert run.returncode == 0, run.stderr.decode()
    assert [part.decode() for part in run.stdout.split(b"\0")[:-1]] == values
