"""HAProxy: the load balancer of a cluster or of several, plain TCP so that TLS stays end to end.

It tells the ingress by the PROXY protocol whose connection it forwards, so that every log behind it has the client's address.

It listens on every address that its machine holds at the moment. Which cluster a connection is for, its destination
says: the cluster whose machine it is, unless it is the virtual address of another one. Neither the port nor a server's
name could say it: RKE2's agents dial the registration port, and then the servers' addresses.
"""

from __future__ import annotations

from plan.contract.rule import need
from plan.limits import CONNECT, DRAIN, IDLE
from plan.topology import ClusterHosts, Host, LoadBalancerHosts, Role

INGRESS_HTTP, INGRESS_HTTPS = 30080, 30443  # NodePorts of the reference's firewall table
KUBERNETES_API, SUPERVISOR = 6443, 9345
STATISTICS, ALIVE = 8404, "/alive"  # loopback only; the path answers as long as a worker process serves

FLOWS = (
    need("HAProxy", "any", "haproxy", (80, 443), "HTTP and HTTPS", "people, tools and other clusters reach the tools here"),
    need("HAProxy", "operator", "haproxy", (KUBERNETES_API,), "Kubernetes API", "kubeconfigs point at the load balancer"),
    need("HAProxy", "haproxy", "master", (KUBERNETES_API,), "Kubernetes API", "the load balancer leads to the masters"),
    need("HAProxy", "haproxy", "master", (SUPERVISOR,), "RKE2 supervisor API", "the registration address forwards here"),
    need(
        "HAProxy", "haproxy", "worker", (INGRESS_HTTP, INGRESS_HTTPS), "ingress NodePorts",
        "the load balancer leads to the ingress",
    ),
)  # fmt: skip

_HEAD = """\
global
    log /dev/log local0 info
    user haproxy
    group haproxy
    stats socket /run/haproxy/admin.sock mode 660 level admin expose-fd listeners
    stats timeout 30s
    hard-stop-after {drain}s

defaults
    log global
    mode tcp
    option tcplog
    option dontlognull
    option redispatch 1
    retries 3
    timeout connect {connect}s
    timeout client {idle}s
    timeout server {idle}s
    timeout check 1s
    default-server inter 1s fastinter 500ms downinter 1s fall 2 rise 2

frontend statistics
    mode http
    bind 127.0.0.1:{statistics}
    option httplog
    timeout client 30s
    stats enable
    stats uri /
    stats refresh 10s
    monitor-uri {alive}
    http-request use-service prometheus-exporter if {{ path /metrics }}
"""


def configuration(balancer: LoadBalancerHosts) -> str:
    """The text of haproxy.cfg: 80 and 443 to the workers' NodePorts, 6443 and 9345 to the masters."""
    services: tuple[tuple[str, int, int, Role], ...] = (
        ("ingress-http", 80, INGRESS_HTTP, "worker"),
        ("ingress-https", 443, INGRESS_HTTPS, "worker"),
        ("kubernetes-api", KUBERNETES_API, KUBERNETES_API, "master"),
        ("rke2-supervisor", SUPERVISOR, SUPERVISOR, "master"),
    )
    text = _HEAD.format(
        statistics=STATISTICS, alive=ALIVE, connect=CONNECT.value, idle=IDLE.value, drain=DRAIN.value
    )
    for name, port, target, role in services:
        # The owner's backend is called the same whether there are others or not.
        backends = {name if c == balancer.owner else f"{name}-{c.name}": c for c in balancer.clusters}
        text += _frontend(name, port, backends)
        for backend, cluster in backends.items():
            hosts = [host for host in cluster.nodes if host.role == role]
            text += _ingress(backend, target, hosts) if role == "worker" else _backend(backend, target, hosts)
    return text


def _frontend(name: str, port: int, backends: dict[str, ClusterHosts]) -> str:
    by_address = "".join(
        f"    use_backend {backend} if {{ dst {cluster.entrance} }}\n"
        for backend, cluster in backends.items()
        if backend != name
    )
    return f"\nfrontend {name}\n    bind :{port}\n{by_address}    default_backend {name}\n"


def _backend(name: str, target: int, hosts: list[Host]) -> str:
    # A server that goes down takes its connections with it, so that clients reconnect to one that lives.
    servers = "".join(
        f"    server {h.name} {h.address}:{target} check on-marked-down shutdown-sessions\n" for h in hosts
    )
    return f"\nbackend {name}\n    balance leastconn\n    option tcp-check\n{servers}"


def _ingress(name: str, target: int, hosts: list[Host]) -> str:
    """A backend of the workers' ingress: each worker once by the PROXY protocol, and once without it as a backup.

    The check is a TLS handshake behind a PROXY header, which fails where the ingress does not read the header, and is no
    request in its access log. So a deployed ingress that does not trust this load balancer yet, or no longer (a release that was
    rolled back), is served as before, and no order of changes breaks it.
    """
    servers = "".join(
        f"    server {h.name} {h.address}:{target} send-proxy-v2 check port {INGRESS_HTTPS} check-send-proxy check-ssl verify none "
        "on-marked-down shutdown-sessions\n"
        for h in hosts
    )
    plain = "".join(
        f"    server {h.name}-plain {h.address}:{target} check backup on-marked-down shutdown-sessions\n" for h in hosts
    )
    return f"\nbackend {name}\n    balance leastconn\n    option tcp-check\n    option allbackups\n{servers}{plain}"
