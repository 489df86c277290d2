"""The objects of a cluster's tools that no chart brings: namespaces, CA bundles, Secrets, manifests, Jobs.

`ToolStack` says which, and in which order.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from components import helm_record
from components.cluster_trust import ClusterTrust
from components.passwords import Passwords
from components.pki_chain import ServerCertificate
from config import pem
from plan.tools import jobs
from plan.tools.model import CA_BUNDLE_KEY, Manifest, Secret
from plan.tools.needs import Job
from plan.tools.sources import (
    Bcrypt,
    CaBundle,
    Clear,
    ClusterAccountKeys,
    ClusterAuthority,
    Composed,
    ConfigMap,
    EachCa,
    FromPki,
    Generated,
    Given,
    Htpasswd,
    Source,
)

DIGEST = "opstella.io/inputs"
"""Annotation of a Job's pod: what it was run with. A change makes another Job."""
_AWAITED = ("Ingress", "Service")
"""Kinds that the provider waits for by itself, an Ingress until its Service is there: not where applying is enough."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the values of Secrets come from, for the cluster `cluster`.

    `given` are the user's own secrets by name. PEM: `authority_chain` is the intermediate and what stands above it,
    `authority_key` its key, `certificate` the user's own for `*.domain`, if there is one.
    """

    cluster: str
    passwords: Passwords
    authority_chain: pulumi.Input[str]
    authority_key: pulumi.Input[str]
    ca_bundle: pulumi.Input[str]
    certificate: ServerCertificate | None
    given: Mapping[str, pulumi.Input[str]]
    clusters: Mapping[str, ClusterTrust] = field(default_factory=dict)
    """How others of the platform are verified, by name."""

    def value(self, source: Source) -> pulumi.Input[str]:
        """Raises KeyError or ValueError for what was not provided: the plan asks only for what is there."""
        match source:
            case Clear():
                return source.text
            case Generated():
                return self.passwords.clear(source.cluster or self.cluster, source.password)
            case Bcrypt():
                prefix = source.prefix
                return self.passwords.bcrypt(self.cluster, source.password).apply(lambda hashed: prefix + hashed)
            case Htpasswd():
                hashes = {user: self.passwords.bcrypt(self.cluster, name) for user, name in source.passwords.items()}
                return pulumi.Output.all(**hashes).apply(
                    lambda known: "".join(f"{user}:{known[user]}\n" for user in sorted(known))
                )
            case CaBundle():
                return self.ca_bundle
            case EachCa():
                raise ValueError(f"{source} is no single value")
            case ClusterAuthority():
                return _known(self.clusters[source.cluster].authority, source)
            case ClusterAccountKeys():
                return _known(self.clusters[source.cluster].account_keys, source)
            case Given():
                return pulumi.Output.secret(self.given[source.name])
            case Composed():
                parts = {name: self.passwords.clear(self.cluster, name) for name in source.passwords}
                template = source.template
                return pulumi.Output.all(**parts).apply(lambda known: template.format(**known))
            case FromPki():
                return self._pki(source)

    def _pki(self, source: FromPki) -> pulumi.Input[str]:
        if source.item == "intermediate.chain":
            return self.authority_chain
        if source.item == "intermediate.key":
            return self.authority_key
        if self.certificate is None:
            raise ValueError(f"the catalogue asks for {source.item}, but no certificate was provided")
        return self.certificate.chain if source.item == "wildcard.chain" else self.certificate.private_key


class ToolObjects:
    """Makes objects in one cluster, as children of `parent`, each named after `name`; each namespace and bundle once.

    `hooks` are those of every object that is waited for.
    """

    def __init__(
        self,
        name: str,
        parent: pulumi.Resource,
        provider: pulumi.ProviderResource,
        sources: Sources,
        hooks: pulumi.ResourceHookBinding | None = None,
    ) -> None:
        self._name, self._parent, self._provider, self._sources, self._hooks = name, parent, provider, sources, hooks
        self._namespaces: dict[str, kubernetes.core.v1.Namespace] = {}
        self._accounts: dict[str, kubernetes.core.v1.ServiceAccount] = {}
        self._bundles: dict[tuple[str, str], kubernetes.core.v1.ConfigMap] = {}
        self._contents: dict[tuple[str, str], pulumi.Output[Any]] = {}

    def namespace(self, name: str, level: str) -> kubernetes.core.v1.Namespace:
        """The namespace `name`, held to a pod security level."""
        if name not in self._namespaces:
            self._namespaces[name] = kubernetes.core.v1.Namespace(
                f"{self._name}-{name}",
                metadata=kubernetes.meta.v1.ObjectMetaArgs(
                    name=name,
                    labels={
                        helm_record.OWNER_LABEL: helm_record.OWNER,
                        **{f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "warn", "audit")},
                    },
                ),
                opts=self.options([]),
            )
        return self._namespaces[name]

    def account(self, namespace: str) -> pulumi.Resource:
        """The account of pods of `namespace` that name none, without a token: whatever they are, the API is not theirs.

        Kubernetes makes it too; whoever comes second finds it there.
        """
        if namespace not in self._accounts:
            self._accounts[namespace] = kubernetes.core.v1.ServiceAccount(
                f"{self._name}-{namespace}-default-account",
                metadata=kubernetes.meta.v1.ObjectMetaArgs(name="default", namespace=namespace),
                automount_service_account_token=False,
                opts=self.options([self._namespaces[namespace]]),
            )
        return self._accounts[namespace]

    def bundle(self, name: str, namespace: str) -> kubernetes.core.v1.ConfigMap:
        """The CA bundle as a ConfigMap."""
        if (name, namespace) not in self._bundles:
            self._bundles[name, namespace] = kubernetes.core.v1.ConfigMap(
                f"{self._name}-{namespace}-{name}",
                metadata=kubernetes.meta.v1.ObjectMetaArgs(name=name, namespace=namespace),
                data={CA_BUNDLE_KEY: self._sources.ca_bundle},
                opts=self.options([self._namespaces[namespace]]),
            )
        return self._bundles[name, namespace]

    def secret(self, secret: Secret) -> kubernetes.core.v1.Secret:
        plain = {key: self._sources.value(source) for key, source in secret.data.items() if not isinstance(source, EachCa)}
        content: pulumi.Output[Any] = pulumi.Output.secret(plain)
        for key, source in secret.data.items():
            if isinstance(source, EachCa):
                content = pulumi.Output.all(content, self._sources.ca_bundle).apply(
                    lambda known, key=key: known[0] | _numbered(key, known[1])
                )
        self._contents[secret.namespace, secret.name] = content
        return kubernetes.core.v1.Secret(
            f"{self._name}-{secret.namespace}-{secret.name}",
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                # An empty map would come back as none, and differ at every run.
                name=secret.name,
                namespace=secret.namespace,
                labels=dict(secret.labels) or None,
            ),
            type=secret.type,
            string_data=content,
            opts=self.options([self._namespaces[secret.namespace]]),
        )

    def config_map(self, config_map: ConfigMap) -> kubernetes.core.v1.ConfigMap:
        """A ConfigMap of the stack's own, which Helm leaves alone where its chart once made one of that name."""
        return kubernetes.core.v1.ConfigMap(
            f"{self._name}-{config_map.namespace}-{config_map.name}",
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                name=config_map.name,
                namespace=config_map.namespace,
                labels=dict(config_map.labels) or None,
                annotations={"helm.sh/resource-policy": "keep"},
            ),
            data={key: self._sources.value(source) for key, source in config_map.data.items()},
            opts=self.options([self._namespaces[config_map.namespace]]),
        )

    def manifest(self, manifest: Manifest, after: Sequence[pulumi.Resource]) -> pulumi.Resource:
        body = manifest.body
        waiting: dict[str, str] = {}
        if manifest.wait_for:
            waiting = {
                "pulumi.com/waitFor": manifest.wait_for,
                "pulumi.com/timeoutSeconds": str(manifest.timeout_seconds),
            }
        elif body["kind"] in _AWAITED:
            waiting = {"pulumi.com/skipAwait": "true"}
        if waiting:
            metadata = body["metadata"]
            body = {**body, "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), **waiting}}}
        hooks = self._hooks if manifest.wait_for else None
        options = self.options(after, manifest.timeout_seconds, hooks)
        options.retain_on_delete = manifest.kept or None
        return self._object(f"{self._name}-{manifest.name}", body, options)

    def job(
        self, job: Job, namespace: str, ca_bundle: str | None, after: Sequence[pulumi.Resource]
    ) -> pulumi.Resource:
        """The Job, once it has succeeded. Made anew when its files, its command or a Secret it reads change."""
        name = f"{self._name}-{namespace}-{job.name}"
        before: list[pulumi.Resource] = [self.secret(secret) for secret in job.secrets]
        before += [
            self._object(name, body, self.options([self._namespaces[namespace]]))
            for body in jobs.companions(job, namespace)
        ]
        body = jobs.body(job, namespace, ca_bundle)
        template = body["spec"]["template"]
        template["metadata"]["annotations"] = {DIGEST: self._digest(job, namespace, body)}
        options = pulumi.ResourceOptions.merge(
            self.options([*after, *before], job.timeout_seconds, self._hooks),
            # The name is fixed, and of a Job almost nothing can be changed.
            pulumi.ResourceOptions(delete_before_replace=True, replace_on_changes=["spec"]),
        )
        return self._object(name, body, options)

    def _digest(self, job: Job, namespace: str, body: Mapping[str, Any]) -> pulumi.Output[str]:
        """Of all that the Job is given. Keyed, so that it tells nothing of a secret that could be guessed."""
        clear = json.dumps({"job": body, "files": dict(job.files)}, sort_keys=True)
        contents = {
            name: self._contents[namespace, name]
            for name in jobs.secrets_read(job)
            if (namespace, name) in self._contents
        }
        known = pulumi.Output.all(
            key=self._sources.authority_key, bundle=self._sources.ca_bundle, secrets=pulumi.Output.all(**contents)
        )
        return pulumi.Output.secret(known.apply(lambda all_of_it: _keyed(clear, all_of_it)))

    def _object(self, name: str, body: Mapping[str, Any], opts: pulumi.ResourceOptions) -> pulumi.Resource:
        """Any object. Its type is the provider's own word for it, so nothing must be known of its kind here."""
        api = body["apiVersion"] if "/" in body["apiVersion"] else f"core/{body['apiVersion']}"
        return pulumi.CustomResource(f"kubernetes:{api}:{body['kind']}", name, dict(body), opts)

    def options(
        self, after: Sequence[pulumi.Resource], seconds: int = 300, hooks: pulumi.ResourceHookBinding | None = None
    ) -> pulumi.ResourceOptions:
        limit = f"{seconds + 60}s"
        return pulumi.ResourceOptions(
            parent=self._parent,
            provider=self._provider,
            depends_on=list(after),
            hooks=hooks,
            custom_timeouts=pulumi.CustomTimeouts(create=limit, update=limit, delete=limit),
        )


def _known(value: pulumi.Input[str] | None, source: Source) -> pulumi.Input[str]:
    if value is None:
        raise ValueError(f"the catalogue asks for {source}, which was not provided")
    return value


def _numbered(key: str, bundle: str) -> dict[str, str]:
    """Each certificate of `bundle` by `key` with its number in place of `{number}`."""
    blocks = [block.text for block in pem.blocks(bundle) if block.label == "CERTIFICATE"]
    return {key.format(number=number): text for number, text in enumerate(dict.fromkeys(blocks), 1)}


def _keyed(clear: str, known: Mapping[str, Any]) -> str:
    message = json.dumps([clear, known["bundle"], known["secrets"]], sort_keys=True)
    return hmac.new(known["key"].encode(), message.encode(), hashlib.sha256).hexdigest()
