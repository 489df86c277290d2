"""What DefectDojo's programs trust: the public authorities and the platform's, in one file."""

from __future__ import annotations

from plan.tools.common import CA_FILE, PYTHON_IMAGE, ca_volume, resources
from plan.tools.model import Values

TRUST_FOLDER = "/etc/opstella/trust"
TRUST_FILE = f"{TRUST_FOLDER}/ca.crt"


def trust(bundle: str) -> Values:
    """Values by which its programs trust the public authorities and the platform's.

    requests takes one file for all that it trusts, in place of its own; so the chart's setting for it would leave the
    platform's authorities alone, and no tracker or webhook outside could be reached. The file is put together before the
    programs start, of the public ones that the image of the Jobs has.
    """
    given, mount = ca_volume(bundle)
    volumes = [given, {"name": "opstella-trust", "emptyDir": {}}]
    trusted = {"name": "opstella-trust", "mountPath": TRUST_FOLDER}
    gather = {
        "name": "trust",
        "image": PYTHON_IMAGE,
        "command": ["sh", "-c", f"cat /etc/ssl/certs/ca-certificates.crt {CA_FILE} >{TRUST_FILE}"],
        "resources": resources("10m", "16Mi", "32Mi"),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [mount, trusted],
    }
    pods: Values = {"extraInitContainers": [gather], "extraVolumes": volumes}
    mounts = {"extraVolumeMounts": [{**trusted, "readOnly": True}]}
    return {
        "extraConfigs": {"REQUESTS_CA_BUNDLE": TRUST_FILE},
        "django": {**pods, "uwsgi": mounts},
        "celery": {"worker": {**pods, **mounts}, "beat": {**pods, **mounts}},
    }
