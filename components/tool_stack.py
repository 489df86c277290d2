"""`ToolStack`: the tools inside one cluster.

What a tool is stands in plan/tools as data; this turns it into a namespace, its secrets, a Helm release and its
custom resources, each after what it needs. Charts get secrets by name (`existingSecret`), never in their values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pulumi
import pulumi_kubernetes as kubernetes

from components import helm_lists, helm_record
from components.cluster_trust import ClusterTrust
from components.diagnosis import Diagnosis
from components.passwords import Passwords
from components.pki_chain import ServerCertificate
from components.tool_objects import Sources, ToolObjects
from plan.tools.model import Manifest, Release
from plan.tools.needs import Job, elsewhere


@dataclass(frozen=True, kw_only=True)
class ToolStackArgs:
    """`releases` in an order in which needs come first; `kubeconfig` is cluster-admin's; `after` must stand before the
    first object is made.

    `passwords` are those of the whole platform, `given` the user's own secrets by name. `authority_chain` is PEM, the
    intermediate and what stands above it, and `authority_key` signs in-cluster leaves; `certificate` is the user's own
    for `*.domain`, if there is one. `clusters` says how others of the platform are verified, by name. `external` is
    what stands outside of the cluster, by the name under which a release or a Job needs it: only they wait for it. `until`
    is the ISO date at which what Jobs make is to expire, if they ask for it.
    """

    cluster: str
    kubeconfig: pulumi.Input[str]
    releases: Sequence[Release]
    passwords: Passwords
    authority_chain: pulumi.Input[str]
    authority_key: pulumi.Input[str]
    ca_bundle: pulumi.Input[str]
    certificate: ServerCertificate | None = None
    given: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    clusters: Mapping[str, ClusterTrust] = field(default_factory=dict)
    after: Sequence[pulumi.Resource] = ()
    charts: Mapping[str, str] = field(default_factory=dict)
    """By release, the path of the archive that holds its chart; all others come from their repositories."""
    projects: Sequence[Manifest] = ()
    """Objects of the cluster's projects, in an order in which needs come first."""
    external: Mapping[str, Sequence[pulumi.Resource]] = field(default_factory=dict)
    until: str = ""


class ToolStack(pulumi.ComponentResource):
    """Outputs: `credentials` (tool, or `user-` and a person's name, to url, username and secret password)."""

    credentials: dict[str, dict[str, pulumi.Input[str]]]

    def __init__(self, name: str, args: ToolStackArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("opstella:tools:ToolStack", name, None, opts)
        self._name, self._args = name, args
        self._provider = kubernetes.Provider(
            f"{name}-kubernetes",
            kubeconfig=args.kubeconfig,
            # Without it, a new kubeconfig for the same cluster would replace everything in it.
            cluster_identifier=args.cluster,
            enable_server_side_apply=True,
            # Changed in place. Otherwise they would be deleted and made anew, and what reads them would find none.
            enable_config_map_mutable=True,
            enable_secret_mutable=True,
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(args.after)),
        )
        sources = Sources(
            cluster=args.cluster,
            passwords=args.passwords,
            authority_chain=args.authority_chain,
            authority_key=args.authority_key,
            ca_bundle=args.ca_bundle,
            certificate=args.certificate,
            given=args.given,
            clusters=args.clusters,
        )
        diagnosis = Diagnosis(f"{name}-diagnosis", args.kubeconfig)
        self._objects = ToolObjects(name, self, self._provider, sources, diagnosis.binding())
        self._hooks = diagnosis.binding(helm_record.hooks(f"{name}-helm-record", args.kubeconfig))
        self._deployed = {name: list(resources) for name, resources in args.external.items()}
        for release in args.releases:
            self._release(release)
        made: list[pulumi.Resource] = []
        for manifest in args.projects:
            # Each namespace after the rules for all of them, and what is in it after the namespace.
            found = self._objects.manifest(manifest, made)
            made += [found] if manifest.namespace is None else []
        logins = {r.name: r.login for r in args.releases if r.login}
        logins |= {f"user-{person.username}": person for r in args.releases for person in r.people}
        self.credentials = {
            name: {
                "url": login.url,
                "username": login.username,
                "password": args.passwords.clear(args.cluster, login.password),
            }
            for name, login in logins.items()
        }
        self.register_outputs({"credentials": self.credentials})

    def _release(self, release: Release) -> None:
        objects = self._objects
        first: list[pulumi.Resource] = []
        for namespace, level in {release.namespace: release.pod_security, **release.further_namespaces}.items():
            first += [objects.namespace(namespace, level), objects.account(namespace)]
            if release.ca_bundle:
                first.append(objects.bundle(release.ca_bundle, namespace))
        first += [objects.secret(secret) for secret in release.secrets]
        first += [objects.config_map(config_map) for config_map in release.config_maps]
        before = [objects.manifest(m, [*first, *self._of(m.needs)]) for m in release.before]
        for job in release.jobs:
            if job.before:
                before.append(self._job(job, release, [*first, *before]))
        archive = self._args.charts.get(release.name)
        # Without one, the chart is an archive that was compared with its digest, or a folder of this project.
        repository = None if archive else release.repository
        chart = kubernetes.helm.v3.Release(
            f"{self._name}-{release.name}",
            name=release.name,
            namespace=release.namespace,
            chart=archive or release.chart,
            version=release.version,
            repository_opts=repository and kubernetes.helm.v3.RepositoryOptsArgs(repo=repository),
            values=release.values,
            postrender=helm_lists.POST_RENDERER if release.last_value_wins else None,
            # Without it, the provider drops empty lists, and a chart's default list stands in their place.
            allow_null_values=True,
            # A failed first installation is taken back, so that the next run starts clean.
            atomic=True,
            max_history=5,
            timeout=release.timeout_seconds,
            opts=objects.options(
                [*first, *before, *self._of(release.needs)], seconds=release.timeout_seconds, hooks=self._hooks
            ),
        )
        done: list[pulumi.Resource] = [chart]
        for job in release.jobs:  # one after another: each may build on what the one before it made
            if not job.before:
                done.append(self._job(job, release, done))
        done += [objects.manifest(m, [*done, *self._of(m.needs)]) for m in release.after]
        self._deployed[release.name] = done

    def _job(self, job: Job, release: Release, after: Sequence[pulumi.Resource]) -> pulumi.Resource:
        if job.until:
            job = replace(job, environment={**job.environment, "UNTIL": self._args.until})
        return self._objects.job(job, release.namespace, release.ca_bundle, [*after, *self._of(job.needs)])

    def _of(self, needs: Sequence[str]) -> list[pulumi.Resource]:
        """All that `needs` stand by; a manifest may name its own release, which is seen to anyway."""
        return [resource for need in needs for resource in self._deployed.get(need, ())]

    @property
    def deployed(self) -> Mapping[str, Sequence[pulumi.Resource]]:
        """What each release stands by, by what other clusters' `needs` call it."""
        return {elsewhere(self._args.cluster, r.name): self._deployed[r.name] for r in self._args.releases}
