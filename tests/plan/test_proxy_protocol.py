"""HAProxy itself tells workers whose connection it forwards, and serves those that do not ask, in whatever order they change."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from plan import haproxy
from tests.plan.proxy_protocol import start
from tests.plan.stacks import plan
from tests.plan.test_real_servers import as_root, needs

CLIENT = "198.51.100.7"


@needs("haproxy")
@pytest.mark.toolchain
@as_root
def test_workers_see_the_client_as_soon_as_they_read_the_header_and_are_served_before_and_after(tmp_path: Path) -> None:
    """A deployed stack that is upgraded, one worker after the other, and rolled back."""
    stack = plan(clusters={"standalone": {"workers": {"count": 2, "cpu": 16, "memoryGb": 64}}})
    (balancer,) = stack.topology.load_balancers
    first, second = (str(worker.address) for worker in balancer.owner.workers)
    machine = str(balancer.hosts[0].address)
    pair = tmp_path / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
         "/CN=devops.example.com", "-keyout", str(pair), "-out", str(tmp_path / "certificate.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    pair.write_text(pair.read_text() + (tmp_path / "certificate.pem").read_text())
    steps: list[list[str]] = [[], [first], [first, second], []]
    found = start(
        {
            "configuration": haproxy.configuration(balancer), "balancer": machine, "client": CLIENT,
            "workers": [first, second], "steps": steps, "certificate": str(pair),
        }
    )  # fmt: skip
    for trusting, answers in zip(steps, found, strict=True):
        for port in ("80", "443"):
            seen = {tuple(answer) for answer in answers[port]}
            serving = trusting or [first, second]
            assert seen == {(worker, CLIENT if trusting else machine) for worker in serving}, (trusting, port)
