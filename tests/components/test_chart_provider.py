"""What the real Kubernetes provider makes of a chart's archive, and of a release whose chart comes or goes: no cluster."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, struct_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from components.chart_archives import archives, digest_of
from plan.chart_sources import ChartSource
from tests.support.api_server import executable
from tests.support.chart_repository import Repository, packed

pytestmark = pytest.mark.toolchain

URN = "urn:pulumi:one::opstella::opstella:tools:ToolStack$kubernetes:helm.sh/v3:Release::one-tools-tool"
CLUSTER = {"cluster": {"server": "https://127.0.0.1:1"}, "name": "none"}
KUBECONFIG = {
    "apiVersion": "v1", "kind": "Config", "current-context": "none", "clusters": [CLUSTER],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}], "users": [{"name": "none", "user": {}}],
}  # fmt: skip


def struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(dict(values), struct_pb2.Struct())


class Provider:
    """The provider, run in a folder as the engine runs it in the project's."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = provider_pb2_grpc.ResourceProviderStub(channel)
        told = {"kubernetes:config:kubeconfig": json.dumps(KUBECONFIG)}
        self._stub.Configure(provider_pb2.ConfigureRequest(variables=told, acceptSecrets=False, acceptResources=False))

    def check(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs as the engine keeps them. Raises AssertionError with what the provider refuses."""
        answer = self._stub.Check(provider_pb2.CheckRequest(urn=URN, news=struct(inputs)))
        assert not answer.failures, [failure.reason for failure in answer.failures]
        return json_format.MessageToDict(answer.inputs)

    def difference(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[set[str], set[str]]:
        """The properties that an update changes, and those for which the release is replaced."""
        secret = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "value": dict(old)}
        asked = provider_pb2.DiffRequest(
            id="tool/tool", urn=URN, olds=struct({**old, "__inputs": secret}), news=struct(new)
        )
        answer = self._stub.Diff(asked)
        return {name.partition(".")[0] for name in answer.detailedDiff}, set(answer.replaces)


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Provider]:
    program = executable("provider-kubernetes", "pulumi-resource-kubernetes")
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = subprocess.Popen(
        [program, "127.0.0.1:1"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment | {"HOME": str(tmp_path)}
    )  # fmt: skip
    try:
        assert process.stdout
        port = int(process.stdout.readline())
        with contextlib.closing(grpc.insecure_channel(f"127.0.0.1:{port}")) as channel:
            yield Provider(channel)
    finally:
        process.kill()
        process.wait()


def inputs(chart: str, repository: str | None = None, **more: Any) -> dict[str, Any]:
    opts = {"repositoryOpts": {"repo": repository}} if repository else {}
    return {
        "name": "tool",
        "namespace": "tool",
        "chart": chart,
        "version": "1.0.0",
        "values": {"a": "b"},
        "atomic": True,
        **opts,
        **more,
    }


def test_an_archive_is_loaded_from_where_the_program_put_it_and_swapped_in_place(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    charts = {("tool", "1.0.0"): packed("tool", "1.0.0"), ("tool", "1.1.0"): packed("tool", "1.1.0")}
    with Repository(charts) as repository:
        source = ChartSource(
            tool="tool",
            chart="tool",
            version="1.0.0",
            repository=repository.url,
            digest=digest_of(charts["tool", "1.0.0"]),
        )
        path = archives([source])["tool"]
        plain = provider.check(inputs("tool", repository.url))
        asked = len(repository.asked)
        pinned = provider.check(inputs(path))
        assert len(repository.asked) == asked, "nobody asks the repository for a pinned chart"
    assert (pinned["chart"], pinned["version"]) == (path, "1.0.0") and not Path(path).is_absolute()
    both = {"chart", "repositoryOpts"}
    assert provider.difference(plain, pinned) == (both, set())
    assert provider.difference(pinned, plain) == (both, set())
    assert provider.difference(pinned, pinned) == (set(), set())
    # What does replace one, so that the test would see it.
    assert provider.difference(plain, {**plain, "namespace": "other"})[1] == {"namespace"}


def test_the_version_of_a_file_is_its_own(provider: Provider, tmp_path: Path) -> None:
    """The provider takes an archive of another version without a word: only the program holds it to the settings."""
    (tmp_path / "old.tgz").write_bytes(packed("tool", "0.9.0"))
    assert provider.check(inputs("old.tgz"))["version"] == "0.9.0"
