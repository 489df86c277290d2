"""`Host`: one machine reached over SSH, and the only place that sends anything to it.

A phase is one script of `scripts/`, sent with its values as the standard input of `bash -s`: nothing is installed
on the host for it, nothing secret stands in a command line, and every run is bounded by `timeout` on the host itself
(a cancelled run leaves the remote process behind otherwise).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_command import local, remote

from components.program import program
from components.watchdog import Step, Watchdog
from plan import payload
from plan.hosts import Values
from plan.topology import Host as PlannedHost

# What a phase replies comes behind this line; what is in front of it is the login's own, such as a banner. The same
# line is in scripts/lib.sh.
REPLY = "----- opstella reply -----\n"
# Dials of one hop: 100 ms apart, growing to 5 s. 30 of them wait 111 s between them, enough for a reboot; a host that
# drops packets costs another 5 s each at the bastion, so 261 s. Behind the bastion its kernel bounds a dial
# (plan.hosts.BASTION_SYSCTLS, 15 s): 20 dials take 361 s at most.
_BASTION_DIALS = 30
_DIALS = 20
_DIAL_SECONDS = 5
# The engine's own limit on a step: what the script may take, and all dials of both hops, so that the message is that of the
# last dial, with address and reason, and never only "context deadline exceeded".
_MARGIN_SECONDS = 660
# From there to the moment when a step whose peer is silent is given up.
_SILENCE_SECONDS = 30


def standard_input(phase: str, values: Values) -> str:
    """What `bash -s` reads: the program, then its call with the payload."""
    return f"{program(phase)}main <<'OPSTELLA_PAYLOAD'\n{payload.render(values)}OPSTELLA_PAYLOAD\n"


def command_line(phase: str, seconds: int, *, sudo: bool = True) -> str:
    """The remote command of a phase that may take `seconds`; nothing of the login's environment reaches it."""
    return f"{'sudo -n ' if sudo else ''}timeout --kill-after=10 {seconds} env -i bash -s -- {phase}"


def reply(stdout: str) -> str:
    """What the phase replied, of all that its connection printed. Outputs recorded before there was a mark have none."""
    return stdout.rpartition(REPLY)[2]


# On the operator's own machine, without sudo; of its environment, only what finds the programs.
_LOCAL = 'env -i PATH="$PATH" HOME="$HOME" bash -s -- {}'


@dataclass(frozen=True, kw_only=True)
class Access:
    """How every machine of the stack is reached. `host_keys` pins public keys by host name; `watchdog` ends steps whose
    machine falls silent."""

    user: str
    private_key: pulumi.Input[str]
    port: int
    sudo: bool
    host_keys: Mapping[str, str]
    wait_seconds: int
    watchdog: Watchdog


@dataclass(frozen=True, kw_only=True)
class HostArgs:
    """`bastion` is None for the bastion itself, which is dialled at `dial` (default: its planned address)."""

    host: PlannedHost
    access: Access
    preflight: Values
    bastion: Host | None = None
    dial: str | None = None


class Host(pulumi.ComponentResource):
    """One machine after first contact: its host key pinned, its facts known and fit for the plan.

    Outputs: `host_key` (one public key line), `facts` (one JSON line, see scripts/README.md). `ready` is what must
    stand before anything else is run here.
    """

    host_key: pulumi.Output[str]
    facts: pulumi.Output[str]

    def __init__(self, name: str, args: HostArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("opstella:host:Host", name, None, opts)
        self._name = name
        self.plan = args.host
        self._args = args
        self.ready: tuple[pulumi.Resource, ...] = ()
        self.host_key = self._pin()
        self._connection = self._connect()
        preflight = self.run("preflight", args.preflight, seconds=180, parent=self, name=f"{name}-preflight")
        self.facts = preflight.stdout.apply(reply)
        self.first_contact: pulumi.Resource = preflight
        self.register_outputs({"host_key": self.host_key, "facts": self.facts})

    def run(
        self,
        phase: str,
        values: Mapping[str, pulumi.Input[object]],
        *,
        name: str,
        parent: pulumi.Resource,
        seconds: int,
        secret: bool = False,
        delete: str | None = None,
        protect: bool = False,
        after: Sequence[pulumi.Resource] = (),
    ) -> remote.Command:
        """Runs `phase` with `values` on this machine, after what `ready_after` named and after `after`.

        `seconds` bounds the script; `secret` hides its input and outputs in state and diff; `delete` is a phase that
        gets the same values when the resource goes, and before the resource is made again: the other way round it
        would take off the machine what was just installed. With `protect` the engine refuses to let it go. A change of
        script or values runs the phase again.
        """
        # Only what is not known yet goes through the engine's futures: a task per value would be most of a preview.
        later = {k: v for k, v in values.items() if isinstance(v, pulumi.Output) or inspect.isawaitable(v)}
        text: pulumi.Input[str] = (
            pulumi.Output.all(**later).apply(lambda known: standard_input(phase, {**values, **known}))
            if later
            else standard_input(phase, values)
        )
        return remote.Command(
            name,
            connection=self._connection,
            create=command_line(phase, seconds, sudo=self._args.access.sudo),
            delete=command_line(delete, seconds, sudo=self._args.access.sudo) if delete else None,
            stdin=pulumi.Output.secret(text) if secret else text,
            add_previous_output_in_env=False,
            logging=remote.Logging.NONE,
            opts=pulumi.ResourceOptions(
                parent=parent,
                depends_on=[*self.ready, *after],
                additional_secret_outputs=["stdout", "stderr"] if secret else None,
                protect=protect or None,
                delete_before_replace=True if delete else None,
                custom_timeouts=_timeouts(seconds),
                hooks=self._watched(name, seconds),
            ),
        )

    def ask(
        self,
        phase: str,
        values: Mapping[str, pulumi.Input[object]],
        *,
        name: str,
        parent: pulumi.Resource,
        seconds: int,
        secret: bool = False,
        after: Sequence[pulumi.Resource] = (),
    ) -> pulumi.Output[str]:
        """The reply of `phase`, which is run as by `run`."""
        asked = self.run(phase, values, name=name, parent=parent, seconds=seconds, secret=secret, after=after)
        return asked.stdout.apply(reply)

    def _watched(self, name: str, seconds: int, machine: str | None = None) -> pulumi.ResourceHookBinding:
        """Hooks of the command `name`, which runs on `machine` (default: this one) for at most `seconds`."""
        limit = seconds + _MARGIN_SECONDS + _SILENCE_SECONDS
        return self._args.access.watchdog.binding(
            name, Step(machine=machine or self.plan.name, seconds=seconds, limit=limit)
        )

    def ready_after(self, *resources: pulumi.Resource) -> None:
        """Whatever is run from now on waits for `resources`, which ran here and so waited for those named before."""
        self.ready = resources

    def _pin(self) -> pulumi.Output[str]:
        """The machine's host key: the one given, checked on first contact, or the one recorded then.

        A recorded key is never asked for again: only another address or port makes a new first contact.
        """
        host, access = self.plan, self._args.access
        address = self._dial
        values: Values = {
            "name": host.name,
            "address": address,
            "port": access.port,
            "timeout_seconds": access.wait_seconds,
            "expected": access.host_keys.get(host.name, ""),
        }
        seconds = access.wait_seconds + 60
        bastion = self._args.bastion
        name = f"{self._name}-hostkey"
        opts = pulumi.ResourceOptions(
            parent=self,
            depends_on=[bastion.first_contact] if bastion else None,
            hooks=self._watched(name, seconds, bastion.plan.name) if bastion else None,
            ignore_changes=["connection", "create", "stdin", "interpreter"],
            delete_before_replace=True,
            custom_timeouts=_timeouts(seconds),
        )
        triggers = [address, access.port, values["expected"]]
        if bastion is None:
            # The operator's own machine asks.
            recorded: local.Command | remote.Command = local.Command(
                name,
                create=_LOCAL.format("hostkey"),
                stdin=standard_input("hostkey", values),
                add_previous_output_in_env=False,
                logging=local.Logging.NONE,
                triggers=triggers,
                opts=opts,
            )
        else:
            recorded = remote.Command(
                name,
                connection=bastion._connection,
                create=command_line("hostkey", seconds, sudo=access.sudo),
                stdin=standard_input("hostkey", values),
                add_previous_output_in_env=False,
                logging=remote.Logging.NONE,
                triggers=triggers,
                opts=opts,
            )
        return recorded.stdout.apply(reply)

    @property
    def _dial(self) -> str:
        return self._args.dial or str(self.plan.address)

    def _connect(self) -> remote.ConnectionArgs:
        access, bastion = self._args.access, self._args.bastion
        proxy = None
        if bastion is not None:
            proxy = remote.ProxyConnectionArgs(
                host=bastion._dial,
                port=access.port,
                user=access.user,
                private_key=access.private_key,
                host_key=bastion.host_key,
                dial_error_limit=_BASTION_DIALS,
                per_dial_timeout=_DIAL_SECONDS,
            )
        return remote.ConnectionArgs(
            host=self._dial,
            port=access.port,
            user=access.user,
            private_key=access.private_key,
            host_key=self.host_key,
            proxy=proxy,
            dial_error_limit=_DIALS if proxy else _BASTION_DIALS,
            per_dial_timeout=_DIAL_SECONDS,
        )


def compare(
    hosts: Sequence[Host], access: Access, *, name: str, parent: pulumi.Resource, seconds: int
) -> pulumi.Resource:
    """Compares the facts of `hosts`, of which the bastion is the first, on the operator's machine.

    Facts are recorded at first contact. Where they refuse each other, the machines concerned are asked again, so that
    one that was corrected meanwhile is believed; nobody is asked otherwise. What is refused is not recorded.
    """
    values = {
        "machines": [f"{host.plan.name} {host._dial}" for host in hosts],
        "facts": pulumi.Output.all(*(host.facts for host in hosts)).apply("\n".join),
        "host_keys": pulumi.Output.all(*(host.host_key for host in hosts)).apply(lambda keys: "\n".join(map(str.strip, keys))),
        "user": access.user,
        "port": access.port,
        "private_key": access.private_key,
    }  # fmt: skip
    text = pulumi.Output.all(**values).apply(lambda known: standard_input("fleet", known))
    return local.Command(
        name,
        create=_LOCAL.format("fleet"),
        stdin=pulumi.Output.secret(text),
        add_previous_output_in_env=False,
        logging=local.Logging.NONE,
        opts=pulumi.ResourceOptions(
            parent=parent, custom_timeouts=_timeouts(seconds), additional_secret_outputs=["stdout", "stderr"]
        ),
    )


def _timeouts(seconds: int) -> pulumi.CustomTimeouts:
    limit = f"{seconds + _MARGIN_SECONDS}s"
    return pulumi.CustomTimeouts(create=limit, update=limit, delete=limit)
