"""SSH as the command provider does it: dial with retries, one proxy hop, run one command.

The rules follow the official provider's source (``connection.go`` and
``commandOutputs.go`` at 1.2.1) and its error text; the protocol is asyncssh's.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncssh
from asyncssh.channel import SSHClientChannel

from .schema import Call, ProviderError
from .streams import LineLog, Output, text
from .values import go_quote

_T = TypeVar("_T")

_FIRST_DELAY_SECONDS = 0.1
_BACKOFF = 1.5
_LONGEST_DELAY_SECONDS = 5.0
_UNLIMITED = -1
_DEFAULT_DIALS = 10
_WINDOW_BYTES = 2 * 1024 * 1024
_PACKET_BYTES = 32 * 1024


class DialError(Exception):
    """One dial failed; the text is what the official provider would print for it."""


async def dial_with_retry(call: Call, message: str, limit: int,
                          dial: Callable[[], Awaitable[_T]]) -> _T:
    """Dial until it works or failed ``limit`` times and once more; -1 never gives up.

    Waits 0.1 s after the first failure and 1.5 times longer after each, at most
    5 s.  Raises ``ProviderError`` with the last failure.
    """
    delay = _FIRST_DELAY_SECONDS
    failures = 0
    while True:
        try:
            return await dial()
        except DialError as error:
            if limit > _UNLIMITED and failures >= limit:
                raise ProviderError(f"after {failures} failed attempts: {error}") from None
        failures += 1
        shown = "inf" if limit == _UNLIMITED else str(limit)
        call.log("info", f"{message} {failures}/{shown} failed: retrying", True)
        await call.sleep(delay)
        delay = min(delay * _BACKOFF, _LONGEST_DELAY_SECONDS)


def _limit(connection: dict[str, Any]) -> int:
    return int(connection.get("dialErrorLimit", _DEFAULT_DIALS))


def _port(connection: dict[str, Any]) -> int:
    return int(connection.get("port", 22))


def _endpoint(connection: dict[str, Any]) -> str:
    host = connection["host"]
    return f"[{host}]:{_port(connection)}" if ":" in host else f"{host}:{_port(connection)}"


_HOST_KEY_KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384",
                   "ecdsa-sha2-nistp521")


class _Refusals(asyncssh.SSHClient):
    """Notes the kind of a host key that is not the pinned one; never accepts it."""

    kind = ""

    def validate_host_public_key(self, host: str, addr: str, port: int,
                                 key: asyncssh.SSHKey) -> bool:
        self.kind = key.algorithm.decode()
        return False


def _options(connection: dict[str, Any]) -> dict[str, Any]:
    """asyncssh's options for one hop; nothing is read from the user's SSH configuration."""
    options: dict[str, Any] = {
        "username": connection.get("user", "root"), "config": None, "known_hosts": None,
        "client_keys": None, "agent_path": None, "gss_auth": False, "gss_kex": False,
        "login_timeout": 0, "connect_timeout": None, "keepalive_interval": 0,
        "host_based_auth": False, "encoding": None,
    }
    if connection.get("hostKey") is not None:
        try:
            key = asyncssh.import_public_key(connection["hostKey"].strip())
        except (asyncssh.KeyImportError, ValueError):
            raise ProviderError("failed to parse host key: ssh: no key found") from None
        options["known_hosts"] = ([key], [], [])
        # Only the pinned kind is acceptable. The others stand behind it so that a server
        # without it says which it has, instead of hanging up.
        pinned = key.algorithm.decode()
        options["server_host_key_algs"] = list(dict.fromkeys([pinned, *_HOST_KEY_KINDS]))
    methods = []
    if connection.get("privateKey") is not None:
        try:
            options["client_keys"] = [asyncssh.import_private_key(
                connection["privateKey"], connection.get("privateKeyPassword"))]
        except asyncssh.KeyEncryptionError:
            raise ProviderError("x509: decryption password incorrect") from None
        except asyncssh.KeyImportError as error:
            if "decrypt" in str(error):
                raise ProviderError("x509: decryption password incorrect") from None
            if "Passphrase" in str(error):
                raise ProviderError("ssh: this private key is passphrase protected") from None
            raise ProviderError("ssh: no key found") from None
        methods.append("publickey")
    if connection.get("password") is not None:
        options["password"] = connection["password"]
        methods += ["password", "keyboard-interactive"]
    agent = connection.get("agentSocketPath") or os.environ.get("SSH_AUTH_SOCK") or None
    if agent is not None:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(agent)
        except OSError as error:
            raise ProviderError(f"dial unix {agent}: connect: {_reason(error)}") from None
        if "publickey" not in methods:
            # A method is tried once: with a private key given, the agent is never asked.
            options["agent_path"] = agent
            methods.append("publickey")
    options["preferred_auth"] = methods
    return options


def _reason(error: OSError) -> str:
    return (os.strerror(error.errno).lower() if error.errno and error.errno > 0
            else str(error))


async def _tcp(connection: dict[str, Any]) -> socket.socket:
    """A connected socket; ``perDialTimeout`` seconds bound this step only, 0 is no bound."""
    seconds = int(connection.get("perDialTimeout", 15)) or None
    endpoint = _endpoint(connection)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(connection["host"], _port(connection),
                                       type=socket.SOCK_STREAM)
    except socket.gaierror:
        raise DialError(f"dial tcp: lookup {connection['host']}: no such host") from None
    last = DialError(f"dial tcp {endpoint}: no address")
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await asyncio.wait_for(loop.sock_connect(sock, address), seconds)
            return sock
        except TimeoutError:
            sock.close()
            last = DialError(f"dial tcp {endpoint}: i/o timeout")
        except OSError as error:
            sock.close()
            last = DialError(f"dial tcp {endpoint}: connect: {_reason(error)}")
        except BaseException:
            sock.close()
            raise
    raise last


async def _handshake(connection: dict[str, Any], options: dict[str, Any],
                     **transport: Any) -> asyncssh.SSHClientConnection:
    refusals = _Refusals()
    own = ""
    if (sock := transport.get("sock")) is not None:
        host, port, *_ = sock.getsockname()
        own = f"{f'[{host}]' if ':' in host else host}:{port}->"
    try:
        return await asyncssh.connect(connection["host"], _port(connection),
                                      client_factory=lambda: refusals, **transport, **options)
    except asyncssh.HostKeyNotVerifiable:
        wanted = options["server_host_key_algs"][0]
        reason = ("ssh: host key mismatch" if refusals.kind == wanted else
                  f"ssh: no common algorithm for host key; we offered: [{wanted}], peer "
                  f"offered: [{refusals.kind}]")
    except asyncssh.PermissionDenied:
        tried = " ".join(["none", *dict.fromkeys(options["preferred_auth"])])
        reason = (f"ssh: unable to authenticate, attempted methods [{tried}], no supported "
                  "methods remain")
    except asyncssh.KeyExchangeFailed as error:
        reason = f"ssh: no common algorithm: {error.reason}"
    except asyncssh.ConnectionLost:
        reason = "EOF"
    except OSError as error:
        reason = f"read tcp {own}{_endpoint(connection)}: read: {_reason(error)}"
    except asyncssh.Error as error:
        reason = f"ssh: {error.reason}"
    raise DialError(f"ssh: handshake failed: {reason}")


@dataclass
class Client:
    """An open connection to the target, and to the proxy it goes through, if any.

    Both stay open until the plugin ends, as with the official provider, which closes none.
    """

    target: asyncssh.SSHClientConnection
    proxy: asyncssh.SSHClientConnection | None = None


# Held, so that no connection is closed because nobody refers to it.
_open: list[Client] = []


def _kept(client: Client) -> Client:
    _open.append(client)
    return client


class _ProxyDial:
    """What asyncssh needs of a tunnel, dialling the target from the proxy with retries."""

    def __init__(self, call: Call, proxy: asyncssh.SSHClientConnection, limit: int) -> None:
        self._call, self._proxy, self._limit = call, proxy, limit
        self.logger = proxy.logger

    async def create_connection(self, factory: Any, host: str, port: int) -> Any:
        """Open the channel from the proxy to ``host``."""
        async def dial() -> Any:
            try:
                return await self._proxy.create_connection(factory, host, port)
            except asyncssh.ChannelOpenError as error:
                raise DialError(f"ssh: rejected: {_OPEN_REASONS.get(error.code, 'unknown')} "
                                f"({error.reason})") from None
            except (asyncssh.Error, OSError):
                raise DialError("EOF") from None

        return await dial_with_retry(self._call, "Dial from proxy", self._limit, dial)


_OPEN_REASONS = {1: "administratively prohibited", 2: "connect failed",
                 3: "unknown channel type", 4: "resource shortage"}


async def dial(call: Call, connection: dict[str, Any]) -> Client:
    """Connect to ``connection``, through its ``proxy`` when it has one.

    ``connection`` is the plain value of the resource's property, defaults filled
    in.  Raises ``ProviderError`` when the dials run out, ``UserCancelled`` when the
    engine stops or the resource's time-out ends between two dials.
    """
    options = _options(connection)
    proxy = connection.get("proxy")
    if proxy is None:
        async def direct() -> asyncssh.SSHClientConnection:
            return await _handshake(connection, options, sock=await _tcp(connection))

        return _kept(Client(await dial_with_retry(call, "Dial", _limit(connection), direct)))

    try:
        proxy_options = _options(proxy)

        async def to_proxy() -> asyncssh.SSHClientConnection:
            return await _handshake(proxy, proxy_options, sock=await _tcp(proxy))

        hop = await dial_with_retry(call, "Dial proxy", _limit(proxy), to_proxy)
    except ProviderError as error:
        raise type(error)(f"proxy: {error}") from None

    tunnel = _ProxyDial(call, hop, _limit(connection))
    broken = False

    async def through() -> asyncssh.SSHClientConnection:
        # The official provider repeats the handshake on the one connection it opened
        # from the proxy, which the first failure has closed: no later try can work,
        # and the last one's EOF is all that the user is told.
        nonlocal broken
        if broken:
            raise DialError("ssh: handshake failed: EOF")
        try:
            return await _handshake(connection, options, tunnel=tunnel)
        except DialError:
            broken = True
            raise

    try:
        return _kept(Client(await dial_with_retry(call, "Dial", _limit(connection), through), hop))
    except ProviderError as error:
        # The proxy's connection stays open here, too.
        raise type(error)(f"proxy: {error}") from None


class _Channel(SSHClientChannel):  # type: ignore[type-arg]
    """A session channel that asks the server to confirm each environment variable.

    asyncssh sends them without asking; the official provider fails when the server
    does not accept one.  ``refused(name)`` decides what a refusal means.
    """

    refused: Callable[[str], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unconfirmed: list[tuple[bytes, ...]] = []
        self.names: list[str] = []

    def _send_request(self, request: bytes, *args: bytes, want_reply: bool = False) -> None:
        if request == b"env" and not want_reply:
            self._unconfirmed.append(args)
        else:
            super()._send_request(request, *args, want_reply=want_reply)

    async def _make_request(self, request: bytes, *args: bytes) -> bool | None:
        if request == b"exec":
            for name, variable in zip(self.names, self._unconfirmed, strict=True):
                if not await super()._make_request(b"env", *variable):
                    self.refused(name)
        return await super()._make_request(request, *args)


class _Session(asyncssh.SSHClientSession):  # type: ignore[type-arg]
    def __init__(self, output: Output, lines: LineLog) -> None:
        self._output, self._lines = output, lines
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        stream = "stderr" if datatype == asyncssh.EXTENDED_DATA_STDERR else "stdout"
        getattr(self._output, stream).extend(data)
        self._output.both.extend(data)
        self._lines.feed(stream, data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


_ACCEPT_ENV = (
    "Unable to set '{name}'. This only works if your SSH server is configured to accept\n"
    "\tthese variables via AcceptEnv. Alternatively, if a Bash-like shell runs the command on "
    "the remote host, you could\n\tprefix the command itself with the variables in the form "
    "'VAR=value command'")


async def run(call: Call, client: Client, command: str, *, stdin: str | None,
              environment: dict[str, str], previous: dict[str, str],
              logging: str | None) -> tuple[str, str]:
    """Run ``command`` and return its stdout and stderr, less one newline at each end.

    A refused variable of ``environment`` is an error, one of ``previous`` a warning.
    Raises ``ProviderError`` with the command and all it wrote when it fails.  Neither
    a cancel nor a time-out ends a running command, as with the official provider.
    """
    output = Output()
    lines = LineLog(call, logging)
    session = _Session(output, lines)
    connection: Any = client.target
    channel: Any = _Channel(connection, asyncio.get_running_loop(), "replace", None, "strict",
                            _WINDOW_BYTES, _PACKET_BYTES)

    def refused(name: str) -> None:
        fatal = name in environment
        call.log("error" if fatal else "warning", _ACCEPT_ENV.format(name=name), False)
        if fatal:
            raise ProviderError(
                f"could not set environment variable {go_quote(name)}: ssh: setenv failed")

    variables = {**environment, **previous}
    channel.refused, channel.names = refused, list(variables)
    try:
        await channel.create(lambda: session, command, None, variables, False, None, None, {},
                             False, None, None, False, False)
    except asyncssh.ChannelOpenError as error:
        raise ProviderError(f"ssh: command {command} failed: {error.reason}") from None
    try:
        if stdin:
            channel.write(stdin.encode())
        channel.write_eof()
    except OSError:
        # The command ended without reading all of its input: its exit status tells.
        pass
    await session.ended
    lines.close()
    failure = _failure(channel)
    if failure is not None:
        raise ProviderError(f"{failure}: running {go_quote(command)}:\n"
                            f"{output.both.decode(errors='replace')}")
    return text(output.stdout), text(output.stderr)


# The numbers that golang.org/x/crypto/ssh adds to 128; a signal outside RFC 4254 adds none.
_SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "ABRT": 6, "FPE": 8, "KILL": 9, "SEGV": 11, "PIPE": 13,
            "ALRM": 14, "TERM": 15}


def _failure(channel: Any) -> str | None:
    signal = channel.get_exit_signal()
    if signal is not None:
        name, _, message, _ = signal
        reason = f". Reason was: {message}" if message else ""
        return f"Process exited with status {128 + _SIGNALS.get(name, 0)} from signal {name}{reason}"
    status = channel.get_exit_status()
    if status is None:
        return "wait: remote command exited without exit status or exit signal"
    return None if status == 0 else f"Process exited with status {status}"
