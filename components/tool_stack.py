"""`ToolStack`: the tools inside one cluster.

What a tool is stands in plan/tools as data; this turns it into a namespace, its secrets, a Helm release and its
custom resources, each after what it needs. Charts get secrets by name (`existingSecret`), never in their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as kubernetes
import pulumi_random as random

from components import helm_record
from components.pki_chain import ServerCertificate
from plan.tools.model import (
    CA_BUNDLE_KEY,
    Bcrypt,
    Clear,
    FromPki,
    Generated,
    Manifest,
    Password,
    Release,
    Secret,
)


@dataclass(frozen=True, kw_only=True)
class ToolStackArgs:
    """`releases` in an order in which needs come first; `kubeconfig` is cluster-admin's; `after` must stand before the
    first object is made.

    `authority_chain` is PEM, the intermediate and what stands above it, and `authority_key` signs in-cluster leaves;
    `certificate` is the user's own for `*.domain`, if there is one.
    """

    cluster: str
    kubeconfig: pulumi.Input[str]
    releases: Sequence[Release]
    authority_chain: pulumi.Input[str]
    authority_key: pulumi.Input[str]
    ca_bundle: pulumi.Input[str]
    certificate: ServerCertificate | None = None
    after: Sequence[pulumi.Resource] = ()


class ToolStack(pulumi.ComponentResource):
    """Outputs: `credentials` (tool to url, username and secret password)."""

    credentials: dict[str, dict[str, pulumi.Input[str]]]

    def __init__(self, name: str, args: ToolStackArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("opstella:tools:ToolStack", name, None, opts)
        self._name, self._args = name, args
        provider = kubernetes.Provider(
            f"{name}-kubernetes",
            kubeconfig=args.kubeconfig,
            # Without it, a new kubeconfig for the same cluster would replace everything in it.
            cluster_identifier=args.cluster,
            enable_server_side_apply=True,
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(args.after)),
        )
        self._provider = provider
        self._hooks = helm_record.hooks(f"{name}-helm-record", args.kubeconfig)
        self._namespaces: dict[str, kubernetes.core.v1.Namespace] = {}
        self._bundles: dict[tuple[str, str], kubernetes.core.v1.ConfigMap] = {}
        self._passwords: dict[str, random.RandomPassword] = {}
        self._deployed: dict[str, list[pulumi.Resource]] = {}
        for release in args.releases:
            self._release(release)
        self.credentials = {
            r.name: {
                "url": r.login.url,
                "username": r.login.username,
                "password": self._passwords[r.login.password].result,
            }
            for r in args.releases
            if r.login
        }
        self.register_outputs({"credentials": self.credentials})

    def _release(self, release: Release) -> None:
        namespace = self._namespace(release)
        for password in release.passwords:
            self._password(password)
        first: list[pulumi.Resource] = [namespace]
        if release.ca_bundle:
            first.append(self._bundle(release.ca_bundle, release.namespace))
        first += [self._secret(secret) for secret in release.secrets]
        before = [self._manifest(manifest, first) for manifest in release.before]
        needed = [resource for need in release.needs for resource in self._deployed[need]]
        chart = kubernetes.helm.v3.Release(
            f"{self._name}-{release.name}",
            name=release.name,
            namespace=release.namespace,
            chart=release.chart,
            version=release.version,
            repository_opts=kubernetes.helm.v3.RepositoryOptsArgs(repo=release.repository),
            values=release.values,
            # A failed first installation is taken back, so that the next run starts clean.
            atomic=True,
            max_history=5,
            timeout=release.timeout_seconds,
            opts=self._options([*first, *before, *needed], seconds=release.timeout_seconds, hooks=self._hooks),
        )
        self._deployed[release.name] = [chart]
        after = [self._manifest(manifest, [chart]) for manifest in release.after]
        self._deployed[release.name] += after

    def _namespace(self, release: Release) -> kubernetes.core.v1.Namespace:
        name = release.namespace
        if name not in self._namespaces:
            level = release.pod_security
            self._namespaces[name] = kubernetes.core.v1.Namespace(
                f"{self._name}-{name}",
                metadata=kubernetes.meta.v1.ObjectMetaArgs(
                    name=name,
                    labels={
                        helm_record.OWNER_LABEL: helm_record.OWNER,
                        **{f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "warn", "audit")},
                    },
                ),
                opts=self._options([]),
            )
        return self._namespaces[name]

    def _bundle(self, name: str, namespace: str) -> kubernetes.core.v1.ConfigMap:
        if (name, namespace) not in self._bundles:
            self._bundles[name, namespace] = kubernetes.core.v1.ConfigMap(
                f"{self._name}-{namespace}-{name}",
                metadata=kubernetes.meta.v1.ObjectMetaArgs(name=name, namespace=namespace),
                data={CA_BUNDLE_KEY: self._args.ca_bundle},
                opts=self._options([self._namespaces[namespace]]),
            )
        return self._bundles[name, namespace]

    def _password(self, password: Password) -> None:
        self._passwords[password.name] = random.RandomPassword(
            f"{self._name}-{password.name}",
            length=password.length,
            special=password.special,
            opts=pulumi.ResourceOptions(parent=self, additional_secret_outputs=["result", "bcrypt_hash"]),
        )

    def _secret(self, secret: Secret) -> kubernetes.core.v1.Secret:
        return kubernetes.core.v1.Secret(
            f"{self._name}-{secret.namespace}-{secret.name}",
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                # An empty map would come back as none, and differ at every run.
                name=secret.name,
                namespace=secret.namespace,
                labels=dict(secret.labels) or None,
            ),
            type=secret.type,
            string_data=pulumi.Output.secret({key: self._value(source) for key, source in secret.data.items()}),
            opts=self._options([self._namespaces[secret.namespace]]),
        )

    def _value(self, source: Clear | Generated | Bcrypt | FromPki) -> pulumi.Input[str]:
        if isinstance(source, Clear):
            return source.text
        if isinstance(source, Generated):
            return self._passwords[source.password].result
        if isinstance(source, Bcrypt):
            return self._passwords[source.password].bcrypt_hash
        args = self._args
        if source.item == "intermediate.chain":
            return args.authority_chain
        if source.item == "intermediate.key":
            return args.authority_key
        if args.certificate is None:
            raise ValueError(f"the catalogue asks for {source.item}, but no certificate was provided")
        return args.certificate.chain if source.item == "wildcard.chain" else args.certificate.private_key

    def _manifest(self, manifest: Manifest, after: Sequence[pulumi.Resource]) -> kubernetes.apiextensions.CustomResource:
        body = manifest.body
        metadata = dict(body["metadata"])
        if manifest.wait_for:
            metadata["annotations"] = {
                **metadata.get("annotations", {}),
                "pulumi.com/waitFor": manifest.wait_for,
                "pulumi.com/timeoutSeconds": str(manifest.timeout_seconds),
            }
        needed = [resource for need in manifest.needs if need in self._deployed for resource in self._deployed[need]]
        return kubernetes.apiextensions.CustomResource(
            f"{self._name}-{manifest.name}",
            api_version=body["apiVersion"],
            kind=body["kind"],
            metadata=metadata,
            spec=body["spec"],
            opts=self._options([*after, *needed], seconds=manifest.timeout_seconds),
        )

    def _options(
        self, after: Sequence[pulumi.Resource], seconds: int = 300, hooks: pulumi.ResourceHookBinding | None = None
    ) -> pulumi.ResourceOptions:
        limit = f"{seconds + 60}s"
        return pulumi.ResourceOptions(
            parent=self,
            provider=self._provider,
            depends_on=list(after),
            hooks=hooks,
            custom_timeouts=pulumi.CustomTimeouts(create=limit, update=limit, delete=limit),
        )
