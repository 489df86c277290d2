"""What DefectDojo's programs trust: the public authorities and the platform's, in one file, and the one of its database."""

from __future__ import annotations

from plan.tools import cloudnative_pg
from plan.tools.common import CA_FILE, PYTHON_IMAGE, ca_volume, resources
from plan.tools.model import Values

TRUST_FOLDER = "/etc/opstella/trust"
TRUST_FILE = f"{TRUST_FOLDER}/ca.crt"


def values(bundle: str | None, database: str) -> Values:
    """Values by which its programs verify `database`, and trust the public authorities and those of `bundle`.

    The chart has no setting for the first; psycopg and psql are libpq's, which reads these variables in every container.
    """
    volume, mount, file = cloudnative_pg.authority(database)
    volumes, mounts, gather = [volume], [mount], []
    variables = {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": file}
    if bundle:
        init, more, trusted = _trust(bundle)
        volumes, mounts, gather = [*volumes, *more], [*mounts, trusted], [init]
        variables["REQUESTS_CA_BUNDLE"] = TRUST_FILE
    pods: Values = {"extraVolumes": volumes, **({"extraInitContainers": gather} if gather else {})}
    seen = {"extraVolumeMounts": mounts}
    return {
        "extraConfigs": variables,
        "django": {**pods, "uwsgi": seen},
        "celery": {"worker": {**pods, **seen}, "beat": {**pods, **seen}},
        "dbMigrationChecker": {"extraVolumeMounts": [mount]},
        # A form of the chart's own, which mounts one file.
        "initializer": {
            "extraVolumes": [
                {
                    "type": "secret", "name": volume["secret"]["secretName"],
                    "path": file, "subPath": cloudnative_pg.AUTHORITY["key"],
                }
            ]
        },
    }  # fmt: skip


def _trust(bundle: str) -> tuple[Values, list[Values], Values]:
    """The init container that makes TRUST_FILE, its volumes, and the mount by which programs see it.

    requests takes one file for all that it trusts, in place of its own; so the chart's setting for it would leave the
    platform's authorities alone, and no tracker or webhook outside could be reached. The file is put together before the
    programs start, of the public ones that the image of the Jobs has.
    """
    given, mount = ca_volume(bundle)
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
    return gather, [given, {"name": "opstella-trust", "emptyDir": {}}], {**trusted, "readOnly": True}
