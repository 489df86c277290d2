"""Harbor's secrets: what the chart would make up anew at every run, and Valkey's addresses, which hold a password."""

from __future__ import annotations

from plan.tools import cert_manager, ci, valkey
from plan.tools.common import beside_bundle
from plan.tools.model import Bcrypt, CaBundle, Composed, Generated, Manifest, Password, Secret, ToolInputs
from plan.tools.needs import Cache

NAME = NAMESPACE = "harbor"
# The logical databases of core, jobservice, registry and Trivy, as the chart numbers them.
CACHE = Cache(user="harbor", secret="harbor-cache", keys=("REGISTRY_REDIS_PASSWORD",), databases=(0, 1, 2, 5))
CACHE_PASSWORD = "valkey-harbor"
CA_SECRET = "harbor-ca"
ADMIN_SECRET, INTERNAL_SECRET, ADDRESSES, REGISTRY_SECRET = (
    "harbor-admin", "harbor-internal", "harbor-cache-addresses", "harbor-registry-credentials",
)  # fmt: skip
TOKEN_SECRET = "harbor-token"  # key and certificate that sign what `docker login` is given
REGISTRY_USER = "harbor_registry_user"


def _addresses() -> Secret:
    def address(number: int, query: str = "?idle_timeout_seconds=30") -> Composed:
        text = f"redis://{CACHE.user}:{{{CACHE_PASSWORD}}}@{valkey.ADDRESS}/{number}{query}"
        return Composed(template=text, passwords=(CACHE_PASSWORD,))

    addresses = {"core": address(0), "jobservice": address(1, ""), "registry": address(2), "trivy": address(5)}
    return Secret(name=ADDRESSES, namespace=NAMESPACE, data=addresses)


def secrets(inputs: ToolInputs) -> tuple[tuple[Secret, ...], tuple[Password, ...]]:
    """What the chart would make up anew at every run, and what people log in with."""
    lengths = {"secretKey": 16, "secret": 16, "CSRF_KEY": 32, "JOBSERVICE_SECRET": 16, "REGISTRY_HTTP_SECRET": 16}
    internal = {key: f"harbor-{key.lower().replace('_', '-')}" for key in lengths}
    registry = "harbor-registry-user"
    given = {
        ADMIN_SECRET: {"HARBOR_ADMIN_PASSWORD": Generated(password="harbor-admin")},
        INTERNAL_SECRET: {key: Generated(password=name) for key, name in internal.items()},
        REGISTRY_SECRET: {
            "REGISTRY_PASSWD": Generated(password=registry),
            "REGISTRY_HTPASSWD": Bcrypt(password=registry, prefix=f"{REGISTRY_USER}:"),
        },
        beside_bundle(CA_SECRET, inputs): {"ca.crt": CaBundle()},
    }
    made = tuple(Secret(name=name, namespace=NAMESPACE, data=data) for name, data in given.items())
    passwords = tuple(Password(name=internal[key], length=length) for key, length in lengths.items())
    # Harbor wants letters of both cases and a digit in a robot's secret, and at most 128 characters.
    robot = ci.robot_password(inputs)
    robots = (Password(name=robot, length=40, special=True),) if robot else ()
    return (
        (*made, _addresses(), *ci.robot_secret(NAMESPACE, inputs)),
        (*passwords, Password(name="harbor-admin"), Password(name=registry), *robots),
    )


def token_key() -> tuple[Manifest, ...]:
    """An RSA key that stays, in a certificate that nobody verifies; the chart would make a new one at every upgrade."""
    meta = {"name": TOKEN_SECRET, "namespace": NAMESPACE}
    certificate = {
        "secretName": TOKEN_SECRET,
        "commonName": "harbor-token",
        "duration": "87600h",
        "privateKey": {"algorithm": "RSA", "size": 2048, "encoding": "PKCS1", "rotationPolicy": "Never"},
        "issuerRef": {"group": "cert-manager.io", "kind": "Issuer", "name": TOKEN_SECRET},
    }
    api, needs = "cert-manager.io/v1", (cert_manager.NAME,)
    issuing = {"apiVersion": api, "kind": "Issuer", "metadata": meta, "spec": {"selfSigned": {}}}
    issued = {"apiVersion": api, "kind": "Certificate", "metadata": meta, "spec": certificate}
    return (
        Manifest(name=f"{TOKEN_SECRET}-issuer", namespace=NAMESPACE, needs=needs, body=issuing),
        Manifest(name=TOKEN_SECRET, namespace=NAMESPACE, needs=needs, body=issued, wait_for="condition=Ready"),
    )
