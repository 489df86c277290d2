"""`Passwords`: every generated password of the platform, made before anything that needs one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_random as random

from plan.tools.model import Password


@dataclass(frozen=True, kw_only=True)
class PasswordsArgs:
    """`clusters`: the passwords of each cluster's tools, by cluster."""

    clusters: Mapping[str, Sequence[Password]]


def generated(
    name: str, length: int, *, parent: pulumi.Resource, special: bool = False, aliases: Sequence[pulumi.Alias] = ()
) -> random.RandomPassword:
    """A password of letters and digits, unless `special`; it and its hash are secrets."""
    # What asks for a special character asks for one of every kind.
    least = 1 if special else None
    return random.RandomPassword(
        name,
        length=length,
        special=special,
        min_lower=least,
        min_upper=least,
        min_numeric=least,
        min_special=least,
        opts=pulumi.ResourceOptions(
            parent=parent, additional_secret_outputs=["result", "bcrypt_hash"], aliases=list(aliases) or None
        ),
    )


class Passwords(pulumi.ComponentResource):
    """Outputs: `names` (of the passwords, by cluster).

    Clusters share them: Keycloak in one knows the secret of a client in another.
    """

    names: Mapping[str, list[str]]

    def __init__(self, name: str, args: PasswordsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("opstella:tools:Passwords", name, None, opts)
        self._made: dict[tuple[str, str], random.RandomPassword] = {}
        for cluster, passwords in args.clusters.items():
            for password in passwords:
                # Where they were made before they were shared: in the cluster's ToolStack.
                stack = pulumi.create_urn(f"{cluster}-tools", "opstella:tools:ToolStack")
                former = pulumi.Alias(name=f"{cluster}-tools-{password.name}", parent=stack)
                self._made[cluster, password.name] = generated(
                    f"{name}-{cluster}-{password.name}",
                    password.length,
                    special=password.special,
                    parent=self,
                    aliases=[former],
                )
        self.names = {cluster: [p.name for p in passwords] for cluster, passwords in args.clusters.items()}
        self.register_outputs({"names": self.names})

    def clear(self, cluster: str, name: str) -> pulumi.Output[str]:
        """The password itself, a secret. Raises KeyError: no tool of `cluster` declares it."""
        return self._made[cluster, name].result

    def bcrypt(self, cluster: str, name: str) -> pulumi.Output[str]:
        """Its bcrypt hash, a secret; the same at every run."""
        return self._made[cluster, name].bcrypt_hash

    def anywhere(self, name: str) -> pulumi.Output[str] | None:
        """The password of this name of the first cluster that has one; for what stands outside of every cluster."""
        return next((made.result for (_, known), made in self._made.items() if known == name), None)
