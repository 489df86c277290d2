"""The databases of the tools on a real PostgreSQL: Debian's, a few versions older than the platform's.

CloudNativePG does with a Cluster's `bootstrap.initdb`: CREATE ROLE … LOGIN, CREATE DATABASE … OWNER, the statements as
superuser in the new database, then the password out of the Secret (its pkg/management/postgres/initdb.go). The same is
done here with every Cluster of the plan, all in one server, so that they can be seen to keep apart even there.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_server import free_port
from tests.support.platform import ARCHITECTURES, plan_of

pytestmark = pytest.mark.toolchain


@dataclass(frozen=True)
class Bootstrap:
    """What one Cluster asks for; `where` names it."""

    where: str
    database: str
    owner: str
    secret: str
    encoding: str
    statements: tuple[str, ...]
    parameters: dict[str, str] = field(hash=False)


def bootstraps() -> dict[str, Bootstrap]:
    """Every Cluster of both architectures, by its name; the same name stands for the same thing in both."""
    found: dict[str, Bootstrap] = {}
    for architecture in ARCHITECTURES:
        for cluster, releases in plan_of(architecture).releases.items():
            for release in releases:
                for body in (m.body for m in (*release.before, *release.after) if m.body["kind"] == "Cluster"):
                    name, spec = body["metadata"]["name"], body["spec"]
                    initdb = spec["bootstrap"]["initdb"]
                    found[name] = Bootstrap(
                        where=f"{architecture}/{cluster}: {body['metadata'].get('namespace', release.namespace)}/{name}",
                        database=initdb["database"],
                        owner=initdb["owner"],
                        secret=initdb["secret"]["name"],
                        encoding=initdb.get("encoding", "UTF8"),
                        statements=tuple(initdb.get("postInitApplicationSQL", ())),
                        parameters={k: str(v) for k, v in spec.get("postgresql", {}).get("parameters", {}).items()},
                    )
    return found


BOOTSTRAPS = bootstraps()


class Failed(Exception):
    """psql said no; the text is what it printed."""


class Server:
    """A PostgreSQL in a folder of its own, as an unprivileged user: loopback with passwords, its superuser by socket."""

    def __init__(self, folder: Path) -> None:
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
        assert programs, "no PostgreSQL here: lab/toolchain/setup installs it"
        self.programs, self.folder, self.port = programs[-1], folder, free_port()
        self.user = "nobody" if os.geteuid() == 0 else str(os.geteuid())
        self.passwords: dict[str, str] = {}

    def _run(self, *command: str | Path, seconds: int = 60) -> None:
        drop = ["setpriv", f"--reuid={self.user}", "--clear-groups", "--"] if os.geteuid() == 0 else []
        done = subprocess.run(
            [*drop, *command], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command[0]}: {done.stdout[-2000:]}"

    def start(self) -> None:
        self._run(
            self.programs / "initdb", "--pgdata", self.folder / "data", "--username=postgres", "--encoding=UTF8", "--locale=C",
            "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync", "--no-instructions",
        )  # fmt: skip
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.folder} -c fsync=off "
            "-c log_statement=none"
        )
        # The log is a file: a server that held this process' pipe open would be waited for.
        self._run(
            self.programs / "pg_ctl", "--pgdata", self.folder / "data", "--wait", "--timeout=60", "--silent",
            "--log", self.folder / "log", "--options", options, "start",
        )  # fmt: skip

    def stop(self) -> None:
        if (self.folder / "data/postmaster.pid").exists():
            self._run(self.programs / "pg_ctl", "--pgdata", self.folder / "data", "--mode=immediate", "--wait", "stop")

    def sql(self, text: str, *, user: str = "postgres", password: str | None = None, database: str = "postgres") -> str:
        """What psql prints, without headings. A password goes over loopback, none by the socket. Raises Failed."""
        host = self.folder if password is None else "127.0.0.1"
        done = subprocess.run(
            [self.programs / "psql", "--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align",
             "--set=ON_ERROR_STOP=1", f"--host={host}", f"--port={self.port}", f"--username={user}", f"--dbname={database}"],
            input=text, env={**os.environ, "PGPASSWORD": password or "", "PGCONNECT_TIMEOUT": "10"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Failed(done.stderr)
        return done.stdout.strip()

    def bootstrap(self, wanted: Bootstrap) -> None:
        """As CloudNativePG does it. Raises Failed."""
        owner, database = identifier(wanted.owner), identifier(wanted.database)
        password = secrets.token_urlsafe(24)
        self.sql(f"CREATE ROLE {owner} LOGIN;")
        # Encoding and locale are those of the cluster, which is made for this one database.
        self.sql(f"CREATE DATABASE {database} OWNER {owner} ENCODING '{wanted.encoding}' TEMPLATE template0;")
        for statement in wanted.statements:
            self.sql(statement.rstrip(";") + ";", database=wanted.database)
        self.sql(f"ALTER ROLE {owner} WITH PASSWORD '{password}';")
        self.passwords[wanted.owner] = password


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    # Not below pytest's own folder, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="opstella-pg-", dir="/tmp"))
    running = Server(folder)
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
        running.start()
        for wanted in BOOTSTRAPS.values():
            running.bootstrap(wanted)
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder)


def test_every_database_has_an_owner_of_its_own() -> None:
    assert "keycloak-db" in BOOTSTRAPS
    for names in ([b.owner for b in BOOTSTRAPS.values()], [b.database for b in BOOTSTRAPS.values()]):
        assert len(names) == len(set(names))


@pytest.mark.parametrize("name", BOOTSTRAPS)
class TestDatabase:
    def test_the_owner_logs_in_and_makes_a_table(self, name: str, server: Server) -> None:
        wanted = BOOTSTRAPS[name]
        told = server.sql(
            "CREATE TABLE kept (id int PRIMARY KEY, text text); INSERT INTO kept VALUES (1, 'ä');"
            "SELECT text, current_user, current_database() FROM kept;",
            user=wanted.owner, password=server.passwords[wanted.owner], database=wanted.database,
        )  # fmt: skip
        assert told == f"ä|{wanted.owner}|{wanted.database}"
        assert server.sql(f"SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = '{wanted.owner}';") == "f"

    def test_a_wrong_password_is_refused(self, name: str, server: Server) -> None:
        wanted = BOOTSTRAPS[name]
        with pytest.raises(Failed, match="password authentication failed"):
            server.sql("SELECT 1;", user=wanted.owner, password="wrong", database=wanted.database)

    def test_no_other_owner_reads_or_writes_there(self, name: str, server: Server) -> None:
        wanted = BOOTSTRAPS[name]
        table = f"secret_of_{wanted.owner.replace('-', '_')}"
        server.sql(
            f"CREATE TABLE {table} (id int);", user=wanted.owner, password=server.passwords[wanted.owner],
            database=wanted.database,
        )  # fmt: skip
        for other in {*server.passwords} - {wanted.owner}:
            for attempt in (f"SELECT * FROM {table};", "CREATE TABLE stranger (id int);"):
                with pytest.raises(Failed, match="permission denied"):
                    server.sql(attempt, user=other, password=server.passwords[other], database=wanted.database)

    def test_the_servers_settings_exist(self, name: str, server: Server) -> None:
        for parameter in BOOTSTRAPS[name].parameters:
            assert server.sql(f"SELECT count(*) FROM pg_settings WHERE name = '{parameter}';") == "1", parameter


def test_a_broken_statement_is_noticed(server: Server) -> None:
    broken: dict[str, Any] = {"encoding": "UTF8", "secret": "x", "parameters": {}, "where": "test"}
    with pytest.raises(Failed, match="extension"):
        server.bootstrap(Bootstrap(database="broken", owner="broken", statements=("CREATE EXTENSION nowhere",), **broken))
    with pytest.raises(Failed, match="already exists"):
        server.bootstrap(Bootstrap(database="other", owner=next(iter(server.passwords)), statements=(), **broken))
