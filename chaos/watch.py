"""The probe beside an experiment: started, read and ended; the kubeconfig lies in a private folder until then."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chaos.cluster import Cluster
from chaos.lab import ROOT, ChaosError
from chaos.probe import Order
from chaos.requests import Figures, Request, figures, pause

RATES = {"read": 20.0, "write": 5.0, "ingress": 5.0}
"""Requests a second."""
_FIRST_REQUEST_SECONDS = 60
_END_SECONDS = 180
_PAUSE_SECONDS = 1.0
"""How long the probe may begin nothing, though it should twenty times a second."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Figures by kind, and the numbers of the writes: how many were acknowledged, and which of those are gone."""

    cluster: str
    figures: dict[str, Figures]
    acknowledged: int
    lost: list[int]


class Watch:
    """What the clients of one cluster see from the context's beginning; `end` reads the writes back."""

    def __init__(self, cluster: Cluster, process: subprocess.Popen[str], keep: Path | None) -> None:
        self.cluster, self._process, self._keep = cluster, process, keep
        self._requests: list[Request] = []
        self._verdict: dict[str, Any] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if self._keep:
                with self._keep.open("a") as stream:
                    stream.write(line)
            said = json.loads(line)
            if "kind" in said:
                self._requests.append(Request(**said))
            else:
                self._verdict = said

    def begin(self) -> None:
        """Waits for the first requests. Raises ChaosError."""
        end = time.monotonic() + _FIRST_REQUEST_SECONDS
        while len(self._requests) < RATES["read"]:
            if self._process.poll() is not None or time.monotonic() > end:
                raise ChaosError(f"{self.cluster.name}: the probe sends nothing{self._last_words()}")
            time.sleep(0.1)

    def so_far(self, since: float, until: float) -> dict[str, Figures]:
        """By kind; the requests that began before `until` have ended, if their patience is over."""
        seen = list(self._requests)
        return {kind: figures([r for r in seen if r.kind == kind], since, until) for kind in RATES if any(r.kind == kind for r in seen)}  # fmt: skip

    def end(self, since: float, until: float) -> Seen:
        """Ends the requests; the figures between the two moments. Raises ChaosError when the writes cannot be read."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("end\n")
            self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise ChaosError(f"{self.cluster.name}: the probe does not end") from None
        self._reader.join(10)
        if "lost" not in self._verdict:
            raise ChaosError(f"{self.cluster.name}: the probe could not read its writes back{self._last_words()}")
        starved = pause((r for r in self._requests if r.kind == "read"), since, until)
        if starved > _PAUSE_SECONDS:
            raise ChaosError(
                f"{self.cluster.name}: this machine is too busy for a measurement: the probe itself stood still for "
                f"{starved:.1f} s; try again when it has less to do"
            )
        return Seen(cluster=self.cluster.name, figures=self.so_far(since, until), **self._verdict)

    def _last_words(self) -> str:
        if self._process.poll() is None or not self._process.stderr:
            return ""
        return ": " + (self._process.stderr.read().strip().splitlines() or ["no message"])[-1]


@contextlib.contextmanager
def watch(cluster: Cluster, outputs: dict[str, Any], keep: Path | None = None) -> Iterator[Watch]:
    """A probe of `cluster`, sending by the time the context begins; `outputs` are the stack's.

    `keep` is a file to which every request is appended, a JSON line each.
    """
    with tempfile.TemporaryDirectory(prefix="opstella-chaos-") as name:
        file = Path(name, "kubeconfig")
        file.touch(mode=0o600)
        file.write_text(outputs["kubeconfigs"][cluster.name])
        order = Order(
            kubeconfig=str(file),
            authorities=outputs["ca_bundle"],
            ingress=(cluster.address, cluster.ingress_name) if cluster.has_ingress else None,
            rates=RATES,
        )
        process = subprocess.Popen(
            [ROOT / "lab/lab", "run", "--", sys.executable, "-m", "chaos.probe"],
            cwd=ROOT, env=cluster.lab.environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdin
            process.stdin.write(json.dumps(asdict(order)) + "\n")
            process.stdin.flush()
            started = Watch(cluster, process, keep)
            started.begin()
            yield started
        finally:
            with contextlib.suppress(BrokenPipeError):
                if process.stdin:
                    process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
