"""The check that stands for a pod: its packets through a worker's ruleset, in a kernel."""

from __future__ import annotations

import re
import subprocess

import pytest

from plan import nftables
from plan.plan import as_data
from tests.plan.stacks import plan
from tests.plan.test_real_servers import as_root, needs
from verify import pods
from verify.runner import CheckFailed

OWN = "192.168.72.16:10250"
TARGETS = {
    "192.168.72.13:2049": "NFS", "169.254.169.254:80": "the cloud's metadata", "192.168.72.11:22": "SSH of a bastion",
    "192.168.72.15:2379": "etcd",
}  # fmt: skip


def played(ruleset: str) -> str:
    """What the script says on a worker with `ruleset`, behind which nobody answers."""
    words = " ".join(("172.16.75.254", OWN, *TARGETS))
    code = f"""set -e
ip link set lo up
ip link add wire type veth peer name far
ip link set far up
ip address add 192.168.72.16/24 dev wire
ip link set wire up
ip route add default dev wire
echo 1 >/proc/sys/net/ipv4/ip_forward
nft --file - <<'END'
{ruleset}
END
bash -s -- {words}
ip link | grep -c opv >&2 || true
"""
    done = subprocess.run(
        ["unshare", "--net", "bash", "-c", code], input=pods._SCRIPT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "0", "a link is left"
    return done.stdout


@needs("nft")
@pytest.mark.toolchain
@as_root
def test_the_workers_rules_hold_a_pod_back_and_without_them_the_check_fails() -> None:
    stack = plan()
    worker = stack.topology.clusters[0].workers[0]
    ruleset = nftables.ruleset(worker, stack.contract)
    assert pods.judged("worker-1", OWN, TARGETS, played(ruleset)) == "NFS, the cloud's metadata, SSH of a bastion, etcd: held back on worker-1, by packets"
    without = re.sub(r"    chain (forward|pods_to_machines) \{\n(.+\n)*?    \}\n", "", ruleset)
    with pytest.raises(CheckFailed, match=r"are not held back from NFS \(192\.168\.72\.13:2049\): silent, .*chain pods_to_machines"):
        pods.judged("worker-1", OWN, TARGETS, played(without))


@pytest.mark.parametrize("answer", ["open", "refused", "silent"])
def test_whatever_gets_to_the_machine_is_a_fault(answer: str) -> None:
    lines = [f"{OWN} open", *(f"{target} held" for target in TARGETS)]
    pods.judged("worker-1", OWN, TARGETS, "\n".join(lines))
    with pytest.raises(CheckFailed, match=rf"NFS \(192\.168\.72\.13:2049\): {answer}"):
        pods.judged("worker-1", OWN, TARGETS, "\n".join([*lines, f"192.168.72.13:2049 {answer}"]))
    with pytest.raises(CheckFailed, match="does not reach that node's kubelet"):
        pods.judged("worker-1", OWN, TARGETS, "\n".join([f"{OWN} silent", *lines[1:]]))


def test_the_plan_says_which_network_pods_have() -> None:
    stack = plan("multicluster", clusters={"dev": {"podSubnet": "10.50.0.0/16"}})
    assert {c["name"]: c["pods"] for c in as_data(stack)["clusters"]}["dev"] == "10.50.0.0/16"
