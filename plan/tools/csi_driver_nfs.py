"""csi-driver-nfs: volumes on the cluster's NFS share, and the default StorageClass."""

from __future__ import annotations

from plan import versions
from plan.tools.common import apart, replicas_of, resources, workers_only
from plan.tools.model import Release, Tool, ToolInputs, Values, Workload

NAME = NAMESPACE = "csi-driver-nfs"
CONTROLLER = {"app": "csi-nfs-controller"}


def _values(inputs: ToolInputs) -> Values:
    small = resources("10m", "20Mi", "200Mi")
    return {
        "controller": {
            "replicas": replicas_of(inputs, NAME),
            # It mounts the share to make a volume's folder, and the share is exported to the workers only. Its pods use
            # the host's network, on which the second one of a node finds the port of its probe taken.
            "affinity": workers_only() | apart(CONTROLLER),
            "tolerations": [],
            "resources": {
                "csiProvisioner": resources("10m", "20Mi", "400Mi"),
                "csiResizer": resources("10m", "20Mi", "400Mi"),
                "csiSnapshotter": small,
                "livenessProbe": small,
                "nfs": small,
            },
        },
        "node": {
            "resources": {
                "livenessProbe": small,
                "nodeDriverRegistrar": small,
                "nfs": resources("10m", "20Mi", "300Mi"),
            }
        },
        "externalSnapshotter": {"enabled": False},  # RKE2 brings the snapshot controller and its definitions
        "storageClass": {
            "create": True,
            "name": inputs.storage_class,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            "parameters": {"server": inputs.nfs_server, "share": inputs.nfs_path},
            "reclaimPolicy": "Retain",
            "volumeBindingMode": "Immediate",
            # hard: a database must wait for the share to come back, not see its writes fail.
            "mountOptions": ["nfsvers=4.1", "hard"],
        },
    }


def release(inputs: ToolInputs) -> Release:
    """The driver. Its pods mount on the host, so its namespace is privileged; they use the host's network, on which no
    network policy weighs, and declare no flows."""
    return Release.of(
        versions.CSI_DRIVER_NFS,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs),
        pod_security="privileged",
        workloads=(
            Workload(
                kind="Deployment", name="csi-nfs-controller", namespace=NAMESPACE, replicas=replicas_of(inputs, NAME),
                cpu="50m", memory="100Mi", selector=CONTROLLER, apart=True,
            ),
            Workload(kind="DaemonSet", name="csi-nfs-node", namespace=NAMESPACE, cpu="30m", memory="60Mi"),
        ),  # fmt: skip
    )


TOOL = Tool(name=NAME, release=release)
