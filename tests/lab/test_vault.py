"""The product's Vault scripts against the real Vault and a real API server, both on loopback.

Vault is 1.21.2, the newest that can be built here (lab/vault/README.md says what that leaves open). Rights are those of
the product's Roles, judged by the API server; the shares lie in its Secrets.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification
from cryptography.x509.oid import NameOID

from config.services import VaultSeal
from plan.tools import vault_config, vault_unsealer
from tests.support.api_server import Cluster, wait_for
from tests.support.vault_server import CLIENT_SECRET, DOMAIN, Answered, Site, key_pem, known_by

pytestmark = pytest.mark.toolchain

# Kills the script as a machine's end would, once the request that `when` is true of has been answered.
KILL = """
import os, signal, client
_request, _count = client.Client.request, [0]
def request(self, method, path, **more):
    answer = _request(self, method, path, **more)
    _count[0] += method in ("PUT", "POST")
    if {when}:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
client.Client.request = request
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Iterator[Any]:
    made: list[Site] = []

    def make(count: int = 1, **settings: Any) -> Site:
        folder = tmp_path / f"site-{len(made)}"
        folder.mkdir()
        made.append(Site(folder, cluster, count, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def changes(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.removeprefix("changed: ") for line in done.stdout.splitlines() if line.startswith("changed: ")]


def nothing_secret(site: Site, *shares: str) -> None:
    """No share, token or key in what the scripts printed, nor in the audit log."""
    audit = site.folder / "audit.log"
    text = site.output + (audit.read_text() if audit.exists() else "")
    key = key_pem(site.intermediate[1]).splitlines()[1]
    for secret in (*shares, *site.shares(), CLIENT_SECRET, key):
        assert secret not in text
    assert not re.search(r"\bhvs\.[A-Za-z0-9]{8}|\bs\.[A-Za-z0-9]{20}|eyJ[A-Za-z0-9_-]{20}", site.output)


def request_for(name: str) -> tuple[str, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode(), key


def refused(site: Site, status: int, method: str, path: str, data: Any = None, token: str | None = None) -> None:
    with pytest.raises(Answered) as caught:
        site.ask(method, path, data, token)
    assert caught.value.status == status, caught.value


def test_a_cluster_is_initialised_opened_and_configured_once(site: Any) -> None:
    three = site(3, shares=5, threshold=3)
    three.start()
    first = changes(three.setup())
    assert first[0].startswith("initialised Vault: 5 shares, 3 of them open it")
    assert [line for line in first if line.startswith("unsealed")] == [f"unsealed {a}" for a in three.addresses]
    # Right after the last replica is open, and before anything else is set.
    assert first[4:6] == ["audit device file", "audit device stdout"]
    assert "revoked the root token" in first
    assert three.sealed() == [False, False, False] and three.state() == "ready" and len(three.shares()) == 5
    second = three.setup()
    assert changes(second) == [] and second.stdout == "nothing to change\n"
    nothing_secret(three)

    # A replica that restarted is opened again, by any three shares; without work, it says nothing.
    three.stop(1)
    three.start(1)
    assert three.sealed() == [False, True, False]
    assert changes(three.unseal()) == [f"unsealed {three.addresses[1]}"]
    assert three.sealed() == [False, False, False]
    assert three.unseal().stdout == ""
    three.stop()
    three.start()
    assert len(changes(three.unseal())) == 3
    wait_for("there is a leader again", lambda: three.setup().stdout == "nothing to change\n")


def test_what_differs_is_changed_and_nothing_else(site: Any) -> None:
    one = site(shares=1, threshold=1)
    one.start()
    changes(one.setup())
    root = one.root_token()
    one.ask("POST", "pki/roles/opstella", {"allowed_domains": ["elsewhere.example"]}, root)
    one.ask("PUT", "sys/policies/acl/viewers", {"policy": 'path "*" { capabilities = ["read"] }'}, root)
    assert set(changes(one.setup())) >= {"policy viewers"}
    role = one.ask("GET", "pki/roles/opstella", token=root)["data"]
    assert role["allowed_domains"] == [DOMAIN] and role["allow_ip_sans"] is False
    # A new client secret is known by its digest alone.
    (one.folder / "secrets" / vault_config.CLIENT_FILES / vault_config.CLIENT_KEY).write_text(
        "another-secret-0123456789"
    )
    assert changes(one.setup()) == ["auth/oidc/config: oidc_client_secret"]
    assert changes(one.setup()) == []
    assert "another-secret" not in one.output


def test_certificates_below_the_domain_verify_to_the_root(site: Any) -> None:
    one = site(shares=1, threshold=1)
    one.start()
    changes(one.setup())
    jwt = one.account_token("cert-manager", vault_config.ISSUER, f"vault://{vault_config.ISSUER}")
    token = one.ask("POST", "auth/kubernetes/login", {"role": vault_config.ISSUER, "jwt": jwt})["auth"]["client_token"]
    csr, _ = request_for(f"shop.{DOMAIN}")
    data = one.ask("POST", "pki/sign/opstella", {"csr": csr, "common_name": f"shop.{DOMAIN}"}, token)["data"]
    chain = [x509.load_pem_x509_certificate(c.encode()) for c in (data["certificate"], *data["ca_chain"])]
    verifier = verification.PolicyBuilder().store(verification.Store([one.root[0]]))
    verifier.build_server_verifier(x509.DNSName(f"shop.{DOMAIN}")).verify(chain[0], chain[1:])
    outside, _ = request_for("shop.example.org")
    refused(one, 400, "POST", "pki/sign/opstella", {"csr": outside, "common_name": "shop.example.org"}, token)
    refused(one, 403, "GET", "kv/data/developers/app", token=token)
    # Neither another audience, nor another account, gets this role.
    wrong = one.account_token("cert-manager", vault_config.ISSUER, "vault")
    refused(one, 403, "POST", "auth/kubernetes/login", {"role": vault_config.ISSUER, "jwt": wrong})
    foreign = one.account_token("vault", "vault-setup", f"vault://{vault_config.ISSUER}")
    refused(one, 403, "POST", "auth/kubernetes/login", {"role": vault_config.ISSUER, "jwt": foreign})


def test_groups_of_keycloak_become_policies(site: Any) -> None:
    one = site(shares=1, threshold=1)
    one.start()
    changes(one.setup())
    secret = {"data": {"password": "x"}}
    admin = one.person("platform-admins")
    one.ask("POST", "kv/data/shared/one", secret, admin)
    one.ask("GET", "sys/policies/acl/viewers", token=admin)
    developer = one.person("developers")
    one.ask("POST", "kv/data/developers/app", secret, developer)
    one.ask("GET", "kv/data/shared/one", token=developer)
    refused(one, 403, "POST", "kv/data/shared/one", secret, developer)
    refused(one, 403, "GET", "sys/policies/acl/viewers", token=developer)
    viewer = one.person("viewers")
    one.ask("GET", "kv/data/shared/one", token=viewer)
    one.ask("LIST", "kv/metadata/developers", token=viewer)
    refused(one, 403, "GET", "kv/data/developers/app", token=viewer)
    nobody = one.person("others")
    refused(one, 403, "GET", "kv/data/shared/one", token=nobody)


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Cluster]:
    """Another cluster, whose API server answers nobody without a login, as RKE2's; with the account that asks Vault."""
    folder = tmp_path / "second"
    folder.mkdir()
    running = Cluster(folder, ["--anonymous-auth=false"])
    try:
        running.start()
        for namespace, account in (("cert-manager", vault_config.ISSUER), ("default", vault_config.ISSUER)):
            running.namespace(namespace)
            body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": namespace}}
            running.apply(f"/api/v1/namespaces/{namespace}/serviceaccounts", body)
        yield running
    finally:
        running.stop()


def test_another_clusters_pods_log_in_by_that_clusters_keys_and_nowhere_else(site: Any, second: Cluster) -> None:
    with pytest.raises(AssertionError, match="401"):
        second.request("GET", "/openid/v1/jwks", token="nobody")
    one = site(shares=1, threshold=1, others={"dev": second})
    one.start()
    first = changes(one.setup())
    assert {"login method kubernetes-dev", "auth/kubernetes-dev/config: jwt_validation_pubkeys"} <= set(first)
    assert one.setup().stdout == "nothing to change\n"
    audience = f"vault://{vault_config.ISSUER}"
    there, here = "auth/kubernetes-dev/login", "auth/kubernetes/login"

    def wish(namespace: str = "cert-manager", of: Cluster | None = second, *audiences: str) -> dict[str, str]:
        jwt = one.account_token(namespace, vault_config.ISSUER, *(audiences or (audience,)), of=of)
        return {"role": vault_config.ISSUER, "jwt": jwt}

    own, foreign = wish(of=None), wish()
    login = one.ask("POST", there, foreign)["auth"]
    assert login["lease_duration"] == 5 * 60 and vault_config.ISSUER in login["policies"]
    csr, _ = request_for(f"shop.{DOMAIN}")
    sign = {"csr": csr, "common_name": f"shop.{DOMAIN}"}
    assert "BEGIN CERTIFICATE" in one.ask("POST", "pki/sign/opstella", sign, login["client_token"])["data"]["certificate"]
    refused(one, 403, "GET", "kv/data/developers/app", token=login["client_token"])
    # Each cluster's pods come in by their own door only; the account, its namespace and the audience are bound as well.
    one.ask("POST", here, own)
    for path, data in (
        (here, foreign),
        (there, own),
        (there, wish("default")),
        (there, wish("cert-manager", second, "https://kubernetes.default.svc")),
    ):
        with pytest.raises(Answered) as caught:
            one.ask("POST", path, data)
        assert caught.value.status in (400, 403), (path, caught.value)
    with pytest.raises(Answered):
        one.ask("POST", there, {**foreign, "role": vault_config.PROVISIONER})
    # Nobody there is asked about the token, so a cluster that is away takes nobody else's login with it.
    second.stop()
    assert one.ask("POST", there, foreign)["auth"]["client_token"]
    # Other keys: tokens of the old ones are refused.
    keys = one.folder / "secrets" / vault_config.CLUSTER_FILES / "dev"
    keys.write_text(known_by(one.cluster))
    assert changes(one.setup()) == ["auth/kubernetes-dev/config: jwt_validation_pubkeys"]
    with pytest.raises(Answered):
        one.ask("POST", there, foreign)


def test_the_provisioner_reads_nobodys_secrets(site: Any) -> None:
    one = site(shares=1, threshold=1)
    one.start()
    changes(one.setup())
    jwt = one.account_token("vault", "vault-setup", vault_config.AUDIENCE)
    login = one.ask("POST", "auth/kubernetes/login", {"role": vault_config.PROVISIONER, "jwt": jwt})["auth"]
    for path in ("kv/data/developers/app", "kv/data/shared/one", "sys/raw/core/keyring", "auth/token/accessors"):
        refused(one, 403, "GET", path, token=login["client_token"])
    refused(one, 403, "POST", "pki/issue/opstella", {"common_name": f"x.{DOMAIN}"}, login["client_token"])
    assert login["lease_duration"] == 15 * 60
    # The token that Kubernetes itself takes is none here.
    plain = one.account_token("vault", "vault-setup")
    refused(one, 403, "POST", "auth/kubernetes/login", {"role": vault_config.PROVISIONER, "jwt": plain})


def test_only_the_two_accounts_read_the_shares(site: Any, cluster: Cluster) -> None:
    one = site(shares=1, threshold=1)
    one.start()
    changes(one.setup())
    for namespace, account, wanted in (
        ("vault", "vault-setup", True),
        (vault_unsealer.NAMESPACE, vault_unsealer.NAME, True),
        ("vault", "vault", False),
        ("cert-manager", vault_config.ISSUER, False),
    ):
        review = {
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{namespace}:{account}", "groups": ["system:serviceaccounts"],
                "resourceAttributes": {
                    "namespace": vault_unsealer.NAMESPACE, "resource": "secrets", "name": vault_unsealer.SHARES,
                    "verb": "get",
                },
            },
        }  # fmt: skip
        answer = cluster.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        assert answer["status"]["allowed"] is wanted, account


def test_killed_after_any_of_its_requests_it_goes_on(site: Any) -> None:
    one = site(shares=3, threshold=2)
    one.start()
    killed, output = 0, ""
    kept = one.folder / "killed-after"
    kept.touch()
    # Once after each request that writes. The one gap that cannot be closed, between Vault's answer and its record, has a
    # test of its own.
    first = f"""not path.endswith("/sys/init") and method in ("PUT", "POST") and (
        method + path not in open({str(kept)!r}).read().split() and open({str(kept)!r}, "a").write(method + path + "\\n"))"""
    for _ in range(100):
        done = one.setup(KILL.format(when=first))
        output += done.stdout
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stdout + done.stderr
        killed += 1
    assert killed > 30 and one.state() == "ready", (killed, one.state(), kept.read_text())
    assert output.count("initialised Vault") <= 1 and "made a root token from the shares" in output
    assert one.setup().stdout == "nothing to change\n"
    nothing_secret(one)
    # Of all the root tokens on the way none is left but the one made here.
    root = one.root_token()
    policies = []
    for accessor in one.ask("LIST", "auth/token/accessors", token=root)["data"]["keys"]:
        policies += one.ask("POST", "auth/token/lookup-accessor", {"accessor": accessor}, root)["data"]["policies"]
    assert policies.count("root") == 1


def test_killed_between_vaults_answer_and_the_record_it_says_what_that_means(site: Any) -> None:
    one = site()
    one.start()
    assert one.setup(KILL.format(when='path.endswith("/sys/init")')).returncode == -9
    done = one.setup()
    assert done.returncode == 1 and one.state() == "initialising"
    assert "a run was cut off between Vault's initialisation and the record of its shares" in done.stderr
    assert "nobody has its shares, so nothing was ever stored in this Vault" in done.stderr
    assert "delete that Secret" in done.stderr


def test_a_polite_kill_waits_for_the_record(site: Any) -> None:
    one = site()
    one.start()
    term = KILL.format(when='path.endswith("/sys/init")').replace("SIGKILL", "SIGTERM")
    assert one.setup(term).returncode == 0
    assert one.state() == "ready" and len(one.shares()) == 5


def test_a_vault_of_somebody_elses_is_left_alone_and_can_be_adopted(site: Any, cluster: Cluster) -> None:
    one = site(shares=2, threshold=2)
    one.start()
    theirs = one.ask("PUT", "sys/init", {"secret_shares": 3, "secret_threshold": 2})
    done = one.setup()
    assert done.returncode == 1 and one.state() is None
    assert "this Vault was initialised by somebody else: version 1.21.2" in done.stderr
    assert "2 of 3 shares open it" in done.stderr and "adopt it" in done.stderr
    for share in theirs["keys"][:2]:
        one.ask("PUT", "sys/unseal", {"key": share})
    known = wait_for("it says its name", lambda: one.ask("GET", "sys/seal-status").get("cluster_id"))
    assert known in one.setup().stderr
    # The way that the message offers.
    secret = {
        "apiVersion": "v1", "kind": "Secret", "stringData": {"shares": json.dumps(theirs["keys"][:2])},
        "metadata": {
            "name": vault_unsealer.SHARES, "annotations": {"opstella.io/vault-state": "configuring"},
        },
    }  # fmt: skip
    cluster.apply(f"/api/v1/namespaces/{vault_unsealer.NAMESPACE}/secrets", secret)
    assert "revoked the root token" in changes(one.setup())
    refused(one, 403, "GET", "sys/policies/acl/viewers", token=theirs["root_token"])
    assert one.setup().stdout == "nothing to change\n"


def test_another_vault_than_the_recorded_one_is_refused(site: Any) -> None:
    one = site()
    one.start()
    changes(one.setup())
    other = one.folder / "data-0"
    one.stop()
    subprocess.run(["rm", "-rf", other], check=True)
    one.start()
    done = one.setup()
    assert done.returncode == 1
    assert "Vault is empty, but there are shares of another one" in done.stderr and "restore a snapshot" in done.stderr
    # Its own shares do not open the new one, which somebody initialised meanwhile.
    one.ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
    done = one.setup()
    assert done.returncode == 1 and "the recorded shares do not open Vault" in done.stderr
    nothing_secret(one)


class Custodian:
    """Somebody with a PGP key on a machine of their own."""

    def __init__(self, folder: Path, name: str) -> None:
        self._home = folder / name
        self._home.mkdir(mode=0o700)
        self._gpg("--passphrase", "", "--quick-generate-key", f"{name}@example.com", "rsa2048", "encrypt", "never")
        self.public = self._gpg("--export", f"{name}@example.com")

    def _gpg(self, *arguments: str, text: bytes | None = None) -> bytes:
        argv = ["gpg", "--homedir", str(self._home), "--batch", "--yes", "--pinentry-mode", "loopback", *arguments]
        return subprocess.run(argv, input=text, capture_output=True, check=True, timeout=60).stdout

    def decrypt(self, message: bytes) -> str:
        return self._gpg("--decrypt", text=message).decode()

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self._home), "--kill", "all"], check=False, timeout=30)


@pytest.fixture
def custodians(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Custodian]]:
    folder = tmp_path_factory.mktemp("gpg")
    people = [Custodian(folder, name) for name in ("ada", "ben", "eve")]
    yield people
    for one in people:
        one.close()


def encrypted(site: Site) -> list[bytes]:
    import base64

    data = site.secret(vault_unsealer.ENCRYPTED_SHARES)
    return [base64.b64decode(data[key]) for key in sorted(data) if key.startswith("share-")]


def test_shares_are_handed_to_their_custodians(site: Any, custodians: list[Custodian]) -> None:
    import base64

    keys = tuple(base64.b64encode(c.public).decode() for c in custodians)
    one = site(unseal="pgp", shares=3, threshold=2, pgp_keys=keys)
    one.start()
    done = changes(one.setup())
    assert "left the handover of the shares to the unsealer" in done
    assert one.state() == "handing-over" and len(one.shares()) == 1
    temporary = one.shares()[0]

    # Cut off after Vault made the shares, before they were kept: begun anew, nothing lost.
    assert one.unseal(KILL.format(when='path.endswith("/rekey/update")')).returncode == -9
    assert one.secret(vault_unsealer.ENCRYPTED_SHARES) == {}
    assert "3 shares, each encrypted for its custodian" in changes(one.unseal())[0]
    messages = encrypted(one)
    assert len(messages) == 3
    assert one.unseal().stdout == "" and encrypted(one) == messages

    # Until they have proven them, the temporary share is what opens Vault; a restart forgets the proof.
    one.stop()
    one.start()
    assert "unsealed" in changes(one.unseal())[0]
    assert encrypted(one) != messages
    messages = encrypted(one)

    shares = [c.decrypt(m) for c, m in zip(custodians, messages, strict=True)]
    nonce = one.secret(vault_unsealer.ENCRYPTED_SHARES)["nonce"]
    admin = one.person("platform-admins")
    for share in shares[:2]:
        one.ask("PUT", "sys/rekey/verify", {"key": share, "nonce": nonce}, admin)
    assert "the temporary one is deleted" in changes(one.unseal())[0]
    assert one.state() == "ready" and one.shares() == []
    assert one.setup().stdout == "nothing to change\n"

    # From now on a restart is theirs.
    one.stop()
    one.start()
    done = one.unseal()
    assert done.returncode == 1 and one.sealed() == [True]
    assert "1 of 1 replicas are sealed" in done.stderr and "2 of them unseal" in done.stderr
    assert "every replica of Vault is sealed" in one.setup().stderr
    one.ask("PUT", "sys/unseal", {"key": shares[2]})
    one.ask("PUT", "sys/unseal", {"key": shares[0]})
    wait_for("it is open", lambda: one.sealed() == [False])
    wait_for("it leads", lambda: one.setup().stdout == "nothing to change\n")
    # The temporary share is worth nothing any more.
    one.stop()
    one.start()
    with pytest.raises(Answered):
        for share in (temporary, shares[0]):
            one.ask("PUT", "sys/unseal", {"key": share})
    nothing_secret(one, temporary, *shares)


def test_an_automatic_seal_opens_vault_and_leaves_recovery_keys(site: Any) -> None:
    keeper = site(shares=1, threshold=1)
    keeper.start()
    changes(keeper.setup())
    root = keeper.root_token()
    keeper.ask("POST", "sys/mounts/transit", {"type": "transit"}, root)
    keeper.ask("POST", "transit/keys/unseal", {}, root)
    parameters = {
        "address": keeper.addresses[0], "key_name": "unseal", "mount_path": "transit/", "disable_renewal": "true",
        "tls_ca_cert": str(keeper.bundle),
    }  # fmt: skip
    keeper.cluster.delete(f"/api/v1/namespaces/{vault_unsealer.NAMESPACE}/secrets/{vault_unsealer.SHARES}")
    one = site(unseal="auto", shares=3, threshold=2, seal=VaultSeal(type="transit", parameters=parameters))
    one.environment["VAULT_TOKEN"] = root  # the credential, by the setting's own variable
    one.start()
    first = changes(one.setup())
    assert not [line for line in first if line.startswith("unsealed")] and one.state() == "ready"
    assert len(one.shares()) == 3 and one.sealed() == [False]
    assert one.setup().stdout == "nothing to change\n"
    one.stop()
    one.start()
    wait_for("it opened itself", lambda: one.sealed() == [False])
    wait_for("it leads", lambda: one.setup().stdout == "nothing to change\n")
    # The recovery keys make a root token, and open nothing.
    assert one.root_token()
    nothing_secret(one)


def test_metrics_need_no_token_at_their_own_port_only(site: Any) -> None:
    import urllib.request

    one = site(shares=1, threshold=1)
    one.start()
    changes(one.setup())
    url = f"https://127.0.0.1:{one.metrics_ports[0]}/v1/sys/metrics?format=prometheus"
    with urllib.request.urlopen(url, context=one._context, timeout=20) as answer:
        assert b"vault_core_unsealed" in answer.read()
    refused(one, 403, "GET", "sys/metrics?format=prometheus")
