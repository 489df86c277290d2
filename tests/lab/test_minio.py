"""The object store's provisioning on the real MinIO, of the release that the product deploys, by its real client.

The script runs as in the Job: with nothing on its PATH but mc, a shell and those coreutils that the image of mc holds.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from config.services import ObjectStore
from plan.tools import externals
from plan.tools import minio_buckets as minio
from plan.tools.minio import CLOSED, release
from plan.tools.model import ToolInputs
from plan.tools.needs import Bucket, StorageAccess
from tests.support.api_server import end, executable, free_port, wait_for
from tests.support.platform import plan_of

pytestmark = pytest.mark.toolchain

COREUTILS = ("cat", "chmod", "date", "dirname", "head", "mktemp", "rm", "sleep", "sort", "tr", "wc")
INPUTS = ToolInputs(
    domain="devops.example.com", hosts={"minio": "minio.devops.example.com"}, nfs_server="192.0.2.1", nfs_path="/srv/nfs",
    gitlab="192.0.2.2",
)  # fmt: skip
CHANGES = ("mb", "tag set", "version enable", "ilm rule import", "ilm rule rm", "admin policy create", "admin policy remove",
           "admin policy attach", "admin policy detach", "admin user add", "admin user enable", "admin user disable")  # fmt: skip
# Stands for mc: notes its arguments, runs it, and ends the script hard after the change that DIE_AFTER counts to.
SHIM = """#!/bin/sh
printf '%s\\n' "$*" >> "$NOTES"
"$REAL_MC" "$@"
result=$?
case "$2 $3 $4 $5 " in
  {patterns}) changes=$(($(cat "$COUNTER") + 1)); echo "$changes" > "$COUNTER"
    [ "$changes" != "$DIE_AFTER" ] || kill -KILL "$SCRIPT" ;;
esac
exit $result
"""


@dataclass
class Store:
    """A MinIO on loopback, and what has been done to it."""

    endpoint: str
    root: str
    folder: Path
    keys: dict[str, str] = field(default_factory=dict)
    """Secret key of each user, as the Job is given it."""

    def url(self, user: str, key: str) -> str:
        return f"http://{user}:{key}@{self.endpoint.removeprefix('http://')}"

    def mc(self, *arguments: str, user: str | None = None, key: str | None = None, text: str | None = None):
        """mc as `user` (the root by default), with the alias `s`."""
        name = user or minio.ROOT_USER
        login = self.url(name, key or (self.root if user is None else self.keys[user]))
        return subprocess.run(
            [executable("mc", "mc"), "--json", *arguments], capture_output=True, text=True, timeout=60, check=False,
            input=text,
            env={"HOME": str(self.folder), "MC_CONFIG_DIR": str(self.folder / "mc"), "MC_HOST_s": login},
        )  # fmt: skip

    def buckets(self, user: str | None = None, key: str | None = None) -> set[str]:
        done = self.mc("ls", "s", user=user, key=key)
        assert done.returncode == 0, done.stdout
        return {json.loads(line)["key"].rstrip("/") for line in done.stdout.splitlines()}

    def tags(self, bucket: str) -> dict[str, str]:
        done = self.mc("tag", "list", f"s/{bucket}")
        return json.loads(done.stdout)["tagset"] if done.returncode == 0 else {}

    def user(self, name: str) -> dict[str, str]:
        return json.loads(self.mc("admin", "user", "info", "s", name).stdout)

    def rules(self, bucket: str) -> list[dict]:
        done = self.mc("ilm", "rule", "export", f"s/{bucket}")
        return json.loads(done.stdout)["config"]["Rules"] if done.returncode == 0 else []


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    error: str
    arguments: str
    """Of every call of mc, a line each."""


def provision(
    store: Store, accesses: Sequence[StorageAccess], inputs: ToolInputs = INPUTS, *, die_after: int = 0, shell: str = "dash",
    root: str | None = None, files: Mapping[str, str] | None = None, patience: int = 30,
) -> Run:  # fmt: skip
    """The Job of the product for `accesses`, run here; `store.keys` is the Secret of its users."""
    job_files = minio.provisioning(accesses, inputs).files if files is None else files
    folder = Path(tempfile.mkdtemp(dir=store.folder))
    bin_folder = folder / "bin"
    for name in ("opstella", "secrets/root", "secrets/users", "tmp", "bin"):
        (folder / name).mkdir(parents=True)
    for name, text in job_files.items():
        (folder / "opstella" / name).write_text(text)
    for access in accesses:
        store.keys.setdefault(access.user, secrets.token_hex(16))
    for name, key in store.keys.items():
        (folder / "secrets/users" / name).write_text(key)
    (folder / "secrets/root/rootUser").write_text(minio.ROOT_USER)
    (folder / "secrets/root/rootPassword").write_text(root or store.root)
    for name in COREUTILS:
        (bin_folder / name).symlink_to(str(shutil.which(name)))
    patterns = "|".join(f"'{change} '*" for change in CHANGES)
    (bin_folder / "mc").write_text(SHIM.replace("{patterns}", patterns))
    (bin_folder / "mc").chmod(0o755)
    (folder / "counter").write_text("0")
    environment = {
        "PATH": str(bin_folder), "ENDPOINT": store.endpoint, "SECRETS": str(folder / "secrets"), "TMPDIR": str(folder / "tmp"),
        "PATIENCE": str(patience), "NOTES": str(folder / "notes"), "COUNTER": str(folder / "counter"),
        "DIE_AFTER": str(die_after), "REAL_MC": str(executable("mc", "mc")),
    }  # fmt: skip
    starter = 'SCRIPT=$$ exec "$@"'  # its own process keeps its number, which the shim needs
    done = subprocess.run(
        ["/bin/sh", "-c", starter, "start", str(shutil.which(shell)), str(folder / "opstella/minio.sh")],
        env=environment, capture_output=True, text=True, timeout=280, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    notes = folder / "notes"
    run = Run(done.returncode, done.stdout, done.stderr, notes.read_text() if notes.exists() else "")
    shutil.rmtree(folder)
    return run


def start(folder: Path, environment: Mapping[str, str] | None = None) -> tuple[Store, subprocess.Popen]:
    """A MinIO that keeps its data in `folder`."""
    store = Store(f"http://127.0.0.1:{free_port()}", secrets.token_hex(16), folder)
    (folder / "data").mkdir()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [executable("minio", "minio"), "server", str(folder / "data"), "--quiet", "--address",
             store.endpoint.removeprefix("http://"), "--console-address", f"127.0.0.1:{free_port()}", "-S", str(folder)],
            stdout=log, stderr=log,
            env={"MINIO_ROOT_USER": minio.ROOT_USER, "MINIO_ROOT_PASSWORD": store.root, "MINIO_UPDATE": "off",
                 "MINIO_CALLHOME_ENABLE": "off", "HOME": str(folder), "PATH": os.environ["PATH"], **(environment or {})},
        )  # fmt: skip

    def up() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{store.endpoint}/minio/health/ready", timeout=5) as answer,
        ):
            return answer.status == 200
        return False

    try:
        wait_for("MinIO", up, 60)
    except BaseException:
        end(process)
        raise
    return store, process


@contextlib.contextmanager
def running(environment: Mapping[str, str] | None = None) -> Iterator[Store]:
    folder = Path(tempfile.mkdtemp(prefix="opstella-minio-"))
    process = None
    try:
        store, process = start(folder, environment)
        yield store
    finally:
        end(process)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with running() as store:
        yield store


@pytest.fixture(scope="module")
def bare() -> Iterator[Store]:
    """One that keeps nothing of the platform's, where a run is quick."""
    with running() as store:
        yield store


def accesses() -> tuple[StorageAccess, ...]:
    """Everything that the platform keeps in its store."""
    releases = plan_of("standalone").releases["standalone"]
    return (*(a for release in releases for a in release.storage), *externals.storage(INPUTS, first=True))


@pytest.fixture(scope="module")
def provisioned(store: Store) -> tuple[StorageAccess, ...]:
    wanted = accesses()
    run = provision(store, wanted)
    assert run.code == 0, run.error
    return wanted


def access(user: str, *buckets: Bucket) -> StorageAccess:
    return StorageAccess(user=user, buckets=buckets, secret=None)


def denied(done: subprocess.CompletedProcess) -> bool:
    said = done.stdout + done.stderr
    return done.returncode != 0 and ("Access Denied" in said or "Insufficient permissions" in said)


def everything(*more: StorageAccess) -> tuple[StorageAccess, ...]:
    """What the platform keeps, and `more`, so that nothing of it is taken for unwanted."""
    return (*accesses(), *more)


# --- what the platform keeps ---


def test_every_bucket_is_there_and_marked_as_the_stacks(store: Store, provisioned: tuple[StorageAccess, ...]) -> None:
    wanted = {bucket.name: bucket for a in provisioned for bucket in a.buckets}
    assert set(wanted) <= store.buckets()
    for name, bucket in wanted.items():
        assert store.tags(name) == {"opstella.stack": "standalone.devops.example.com"}
        assert [rule["Expiration"]["Days"] for rule in store.rules(name)] == (
            [bucket.expire_days] if bucket.expire_days else []
        )


def test_a_second_run_changes_nothing_and_says_so(store: Store, provisioned: tuple[StorageAccess, ...]) -> None:
    run = provision(store, provisioned, shell="bash")  # the image's own sh
    assert run.code == 0, run.error
    assert run.out.startswith("nothing to change: ") and run.out.count("\n") == 1
    assert not [line for line in run.arguments.splitlines() if line.split(" ", 1)[1].startswith(CHANGES)]


def test_a_credential_reaches_its_own_buckets_and_no_other(
    store: Store, provisioned: tuple[StorageAccess, ...]
) -> None:
    assert len(provisioned) >= 3
    for mine in provisioned:
        own = {bucket.name for bucket in mine.buckets}
        assert store.buckets(mine.user) == own, "the list of all buckets shows others"
        for name in own:
            place = f"s/{name}/{mine.prefix}probe/object"
            assert store.mc("pipe", place, user=mine.user, text=mine.user).returncode == 0
            assert store.mc("cat", place, user=mine.user).stdout == mine.user
            assert "probe/object" in store.mc("ls", "--recursive", f"s/{name}/{mine.prefix}", user=mine.user).stdout
            assert store.mc("rm", place, user=mine.user).returncode == 0
        for other in provisioned:
            if other.user == mine.user:
                continue
            name = other.buckets[0].name
            assert store.mc("pipe", f"s/{name}/theirs", text=other.user).returncode == 0
            for attempt in (("ls", f"s/{name}/"), ("cat", f"s/{name}/theirs"), ("rm", f"s/{name}/theirs")):
                assert denied(store.mc(*attempt, user=mine.user)), (mine.user, attempt)
            assert denied(store.mc("pipe", f"s/{name}/mine", user=mine.user, text="x"))
            assert store.mc("cat", f"s/{name}/theirs").stdout == other.user


def test_of_a_shared_bucket_a_credential_reaches_what_lies_below_its_prefix(bare: Store) -> None:
    one, other = (
        StorageAccess(user=f"velero-{c}", buckets=(Bucket(name="velero"),), prefix=f"{c}/", secret=None)
        for c in ("dev", "dev2")  # the name of one begins with the other's
    )
    assert provision(bare, (one, other)).code == 0
    for mine, theirs in ((one, other), (other, one)):
        assert bare.mc("pipe", f"s/velero/{theirs.prefix}backups/x", text="theirs").returncode == 0
        assert bare.mc("pipe", f"s/velero/{mine.prefix}backups/x", user=mine.user, text="mine").returncode == 0
        assert bare.mc("cat", f"s/velero/{mine.prefix}backups/x", user=mine.user).stdout == "mine"
        listed = bare.mc("ls", "--recursive", f"s/velero/{mine.prefix}", user=mine.user)
        assert "backups/x" in listed.stdout
        for attempt in (
            ("ls", "s/velero/"),
            ("ls", f"s/velero/{theirs.prefix}"),
            ("cat", f"s/velero/{theirs.prefix}backups/x"),
            ("rm", f"s/velero/{theirs.prefix}backups/x"),
        ):
            assert denied(bare.mc(*attempt, user=mine.user)), (mine.user, attempt)
        assert denied(bare.mc("pipe", f"s/velero/{theirs.prefix}mine", user=mine.user, text="x"))
        assert denied(bare.mc("pipe", "s/velero/mine", user=mine.user, text="x"))


def test_a_credential_administers_nothing(store: Store, provisioned: tuple[StorageAccess, ...]) -> None:
    user = provisioned[0].user
    for attempt in (
        ("mb", "s/another-bucket"),
        ("admin", "user", "ls", "s"),
        ("rb", f"s/{provisioned[0].buckets[0].name}"),
    ):
        assert store.mc(*attempt, user=user).returncode != 0, attempt


def test_a_wrong_secret_key_is_refused(store: Store, provisioned: tuple[StorageAccess, ...]) -> None:
    for mine in provisioned:
        done = store.mc("ls", "s", user=mine.user, key=secrets.token_hex(16))
        assert done.returncode != 0 and "SignatureDoesNotMatch" in done.stdout


def test_no_secret_is_an_argument_or_printed(store: Store) -> None:
    run = provision(store, everything(access("secretive", Bucket(name="secretive"))))
    assert run.code == 0 and "user secretive: made" in run.out
    for secret in (*store.keys.values(), store.root):
        assert secret not in run.arguments + run.out + run.error


# --- what changes ---


def test_versions_and_expiry_follow_the_wish(store: Store) -> None:
    name = "changing"
    for days, versioned, said in (
        (7, False, "objects go after 7 days"),
        (30, True, "keeps versions"),
        (None, True, "stay"),
    ):
        run = provision(store, everything(access(name, Bucket(name=name, versioning=versioned, expire_days=days))))
        assert run.code == 0 and said in run.out, run.out + run.error
        rules = store.rules(name)
        assert [(r["ID"], r["Expiration"]["Days"]) for r in rules] == ([("opstella", days)] if days else [])
        status = json.loads(store.mc("version", "info", f"s/{name}").stdout)["versioning"]["status"]
        assert (status == "Enabled") == versioned


def test_a_new_secret_key_and_a_widened_user_are_put_right(store: Store) -> None:
    mine = access("turning", Bucket(name="turning"))
    assert provision(store, everything(mine)).code == 0
    old = store.keys["turning"]
    store.keys["turning"] = secrets.token_hex(16)
    assert store.mc("admin", "policy", "attach", "s", "readwrite", "--user", "turning").returncode == 0
    run = provision(store, everything(mine))
    assert run.code == 0, run.error
    assert "turning: has a new secret key" in run.out and "turning: may no longer do what readwrite says" in run.out
    assert store.buckets("turning") == {"turning"}
    assert store.mc("ls", "s", user="turning", key=old).returncode != 0


def test_a_user_that_nobody_wants_any_more_is_disabled_and_others_are_left_alone(store: Store) -> None:
    leaving = access("leaving", Bucket(name="leaving"))
    store.keys["somebody"] = secrets.token_hex(16)
    assert store.mc("admin", "user", "add", "s", "somebody", text=store.keys["somebody"] + "\n").returncode == 0
    assert provision(store, everything(leaving)).code == 0
    run = provision(store, everything())
    assert run.code == 0 and "user leaving: disabled" in run.out, run.out + run.error
    assert (store.user("leaving")["userStatus"], store.user("somebody")["userStatus"]) == ("disabled", "enabled")
    assert store.mc("ls", "s", user="leaving").returncode != 0
    assert "leaving" in store.buckets(), "what it kept is not for this script to throw away"
    run = provision(store, everything(leaving))
    assert run.code == 0 and "user leaving: enabled" in run.out
    assert store.buckets("leaving") == {"leaving"}


# --- what is not ours ---


def test_the_bucket_of_a_tool_that_was_switched_off_stays_closed(bare: Store) -> None:
    """Its data, such as backups with all Secrets of a cluster, are there as before."""
    velero = StorageAccess(user="velero", buckets=(Bucket(name="velero"),), secret=None)
    loki = StorageAccess(user="loki", buckets=(Bucket(name="chunks"),), secret=None)
    assert provision(bare, (velero, loki)).code == 0
    for bucket in ("velero", "teams-own"):
        bare.mc("mb", "--ignore-existing", f"s/{bucket}")
        assert bare.mc("pipe", f"s/{bucket}/secret", text="content").returncode == 0
    off = provision(bare, (loki,))
    assert off.code == 0 and "policy" not in off.out, "it says the same: closed by its mark now, by its name before"
    for group in ("developers", "viewers"):
        bare.mc("admin", "user", "add", "s", f"of-{group}", "a-secret-key-1")
        bare.mc("admin", "policy", "attach", "s", group, "--user", f"of-{group}")

        def told(*arguments: str, text: str | None = None) -> int:
            return bare.mc(*arguments, user=f"of-{group}", key="a-secret-key-1", text=text).returncode

        assert told("cat", "s/teams-own/secret") == 0
        for bucket in ("velero", "chunks"):
            assert told("ls", f"s/{bucket}") != 0 and told("cat", f"s/{bucket}/secret") != 0
            assert told("pipe", f"s/{bucket}/new", text="x") != 0 and told("tag", "remove", f"s/{bucket}") != 0
            assert told("rb", "--force", f"s/{bucket}") != 0
    again = provision(bare, (loki,))
    assert again.code == 0 and again.out.startswith("nothing to change"), again.out
    on = provision(bare, (velero, loki))
    assert on.code == 0 and "bucket velero" not in on.out, "it is still the stack's"


def test_what_the_store_tells_without_a_login_is_closed_from_outside(tmp_path: Path) -> None:
    """Metrics need no login inside of the cluster. Every path of this release that tells some is below a closed one."""
    served, process = start(tmp_path, {"MINIO_PROMETHEUS_AUTH_TYPE": "public"})
    paths = [
        "/minio/prometheus/metrics",
        *(f"/minio/v2/metrics/{kind}" for kind in ("cluster", "node", "bucket", "resource")),
        *(f"/minio/metrics/v3{kind}" for kind in ("", "/api", "/system/drive", "/cluster/usage/objects", "/cluster/iam")),
    ]
    try:
        told = []
        for path in paths:
            with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(served.endpoint + path, timeout=20) as answer:
                told += [path] if answer.status == 200 else []
    finally:
        end(process)
    assert {"/minio/prometheus/metrics", "/minio/v2/metrics/cluster"} <= set(told)
    assert [path for path in told if not path.startswith(CLOSED)] == []


def test_anothers_bucket_is_refused_with_its_age_and_size_and_then_adopted(store: Store) -> None:
    name = "foreign"
    assert store.mc("mb", f"s/{name}").returncode == 0
    assert store.mc("tag", "set", f"s/{name}", "opstella.stack=other.example.org&team=blue").returncode == 0
    for number in range(3):
        assert store.mc("pipe", f"s/{name}/{number}", text="x").returncode == 0
    wanted = everything(access("foreigner", Bucket(name=name), Bucket(name="not-made-either")))
    run = provision(store, wanted)
    assert run.code == 1
    for part in (f"the bucket {name} exists", "with 3 objects", "other.example.org", "opstella:objectStore.adopt"):
        assert part in run.error
    assert re.search(r"there since 20\d\d-\d\d-\d\dT", run.error)
    assert "not-made-either" not in store.buckets(), "something was made although the run was refused"
    run = provision(store, wanted, replace(INPUTS, object_store=ObjectStore(adopt=(name,))))
    assert run.code == 0, run.error
    assert store.tags(name) == {"opstella.stack": "standalone.devops.example.com", "team": "blue"}
    assert store.mc("cat", f"s/{name}/2", user="foreigner").stdout == "x"
    assert provision(store, wanted).out.startswith("nothing to change: ")


def test_an_empty_bucket_without_a_mark_is_refused_too(store: Store) -> None:
    assert store.mc("mb", "s/unmarked").returncode == 0
    run = provision(store, everything(access("unmarker", Bucket(name="unmarked"))))
    assert run.code == 1 and "with 0 objects" in run.error and "is not set" in run.error


def test_anothers_user_is_refused(store: Store) -> None:
    assert store.mc("admin", "user", "add", "s", "taken", text="anothers-secret-key\n").returncode == 0
    run = provision(store, everything(access("taken", Bucket(name="taken-bucket"))))
    assert run.code == 1 and "the user taken exists" in run.error
    assert store.buckets().isdisjoint({"taken-bucket"})


# --- what goes wrong ---


@pytest.mark.parametrize("change", range(1, 12))
def test_a_run_that_was_killed_after_any_change_is_taken_up_again(bare: Store, change: int) -> None:
    store, name = bare, f"killed-{change}"
    wanted = (access(name, Bucket(name=name, versioning=True, expire_days=5)),)
    run = provision(store, wanted, die_after=change)
    assert run.code == -signal.SIGKILL, f"there is no change {change}: {run.out} {run.error}"
    run = provision(store, wanted)
    assert run.code == 0, run.error
    assert provision(store, wanted).out.startswith("nothing to change: ")
    assert store.buckets(name) == {name} and store.tags(name) and store.rules(name)
    assert "opstella.making" not in store.mc("admin", "policy", "ls", "s").stdout


def test_a_wrong_root_credential_is_said_at_once(store: Store) -> None:
    run = provision(store, (), root="not-the-password")
    assert run.code == 1 and "refuses the root credential" in run.error and "not-the-password" not in run.error


def test_a_store_that_does_not_answer_is_waited_for_and_named(store: Store) -> None:
    away = replace(store, endpoint=f"http://127.0.0.1:{free_port()}")
    run = provision(away, (), patience=1)
    assert run.code == 1 and away.endpoint in run.error and "does not answer after 1 s" in run.error


# --- people


@dataclass
class Realm:
    """Stands for Keycloak's realm: its discovery document and its keys, and tokens as Keycloak's mappers make them.

    It proves what the store makes of the claim `groups`; not the login in a browser, nor Keycloak.
    """

    url: str = ""
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    def documents(self) -> dict[str, dict]:
        numbers = self.key.public_key().public_numbers()
        key = {"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256", "n": number(numbers.n), "e": number(numbers.e)}
        endpoints = {f"{name}_endpoint": f"{self.url}/{name}" for name in ("authorization", "token", "userinfo")}
        about = {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **endpoints, "response_types_supported": ["code"]}
        about |= {"id_token_signing_alg_values_supported": ["RS256"], "subject_types_supported": ["public"]}
        return {"/.well-known/openid-configuration": about, "/keys": {"keys": [key]}}

    def token(self, *groups: str) -> str:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": "minio",
            "azp": "minio",
            "sub": "someone",
            "iat": now,
            "exp": now + 3600,
            "groups": groups,
        }
        head = {"alg": "RS256", "kid": "1", "typ": "JWT"}
        signed = ".".join(base64url(json.dumps(part).encode()) for part in (head, claims))
        return f"{signed}.{base64url(self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def number(value: int) -> str:
    return base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    realm = Realm()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = json.dumps(realm.documents()[self.path]).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_arguments: object) -> None:
            """Nothing: the test says what it saw."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    realm.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield realm
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def peopled(realm: Realm) -> Iterator[Store]:
    """A store that knows the realm by the product's own values, with one bucket of the platform's."""
    hosts = {**INPUTS.hosts, "keycloak": "idp.devops.example.com"}
    oidc = release(replace(INPUTS, hosts=hosts, all_hosts=hosts)).values["oidc"]
    prefix = "MINIO_IDENTITY_OPENID_"  # as the chart names them
    environment = {
        f"{prefix}CONFIG_URL": f"{realm.url}/.well-known/openid-configuration", f"{prefix}CLIENT_ID": oidc["clientId"],
        f"{prefix}CLIENT_SECRET": secrets.token_hex(16), f"{prefix}CLAIM_NAME": oidc["claimName"],
        f"{prefix}SCOPES": oidc["scopes"], f"{prefix}REDIRECT_URI": oidc["redirectUri"],
    }  # fmt: skip
    with running(environment) as store:
        run = provision(store, (access("velero", Bucket(name="velero")),))
        assert run.code == 0, run.error
        assert store.mc("pipe", "s/velero/backup", text="of everything").returncode == 0
        assert store.mc("mb", "s/teams-own").returncode == 0
        assert store.mc("pipe", "s/teams-own/file", text="theirs").returncode == 0
        yield store


def session(store: Store, token: str) -> dict[str, str] | None:
    """What the store gives for a token of the realm: an access key, its secret, a session; None when it gives nothing."""
    form = {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "WebIdentityToken": token,
        "DurationSeconds": "3600",
    }
    try:
        with urllib.request.urlopen(store.endpoint, urllib.parse.urlencode(form).encode(), timeout=20) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as refused:
        refused.close()
        return None
    found = {
        name: re.search(f"<{name}>(.*?)</{name}>", text) for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")
    }
    return {name: match[1] for name, match in found.items() if match}


def as_person(
    store: Store, login: Mapping[str, str], *arguments: str, text: str | None = None
) -> subprocess.CompletedProcess:
    key = f"{login['SecretAccessKey']}:{login['SessionToken']}"
    return store.mc(*arguments, user=login["AccessKeyId"], key=key, text=text)


@pytest.mark.parametrize(
    ("group", "administers", "writes", "reads", "sees_backups"),
    [
        ("platform-admins", True, True, True, True),
        ("developers", False, True, True, False),
        ("viewers", False, False, True, False),
    ],
)
def test_a_person_may_do_what_the_group_in_the_token_says(
    peopled: Store, realm: Realm, group: str, administers: bool, writes: bool, reads: bool, sees_backups: bool
) -> None:
    login = session(peopled, realm.token(group))
    assert login, (peopled.folder / "log").read_text()
    assert (as_person(peopled, login, "admin", "user", "ls", "s").returncode == 0) == administers
    assert (as_person(peopled, login, "pipe", "s/teams-own/new", text="x").returncode == 0) == writes
    assert (as_person(peopled, login, "cat", "s/teams-own/file").stdout == "theirs") == reads
    assert (as_person(peopled, login, "cat", "s/velero/backup").stdout == "of everything") == sees_backups
    assert (as_person(peopled, login, "ls", "s/velero/").returncode == 0) == sees_backups


@pytest.mark.parametrize("groups", [(), ("somebody-elses",)])
def test_a_person_of_no_group_of_the_platform_gets_nothing(
    peopled: Store, realm: Realm, groups: tuple[str, ...]
) -> None:
    assert session(peopled, realm.token(*groups)) is None


def test_a_token_of_another_realm_is_refused(peopled: Store, realm: Realm) -> None:
    assert session(peopled, Realm(url=realm.url).token("platform-admins")) is None
