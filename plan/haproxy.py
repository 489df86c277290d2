"""HAProxy: one load balancer in front of a cluster, plain TCP so that TLS stays end to end."""

from __future__ import annotations

from plan.topology import ClusterHosts, Host

INGRESS_HTTP, INGRESS_HTTPS = 30080, 30443  # NodePorts of the reference's firewall table
KUBERNETES_API, SUPERVISOR = 6443, 9345
STATISTICS, ALIVE = 8404, "/alive"  # loopback only; the path answers as long as a worker process serves

_HEAD = """\
global
    log /dev/log local0 info
    user haproxy
    group haproxy
    stats socket /run/haproxy/admin.sock mode 660 level admin expose-fd listeners
    stats timeout 30s
    hard-stop-after 10m

defaults
    log global
    mode tcp
    option tcplog
    option dontlognull
    option redispatch 1
    retries 3
    timeout connect 1s
    timeout client 1h
    timeout server 1h
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


def configuration(cluster: ClusterHosts) -> str:
    """The text of haproxy.cfg: 80 and 443 to the workers' NodePorts, 6443 and 9345 to the masters."""
    services = (
        ("ingress-http", 80, INGRESS_HTTP, cluster.workers),
        ("ingress-https", 443, INGRESS_HTTPS, cluster.workers),
        ("kubernetes-api", KUBERNETES_API, KUBERNETES_API, cluster.masters),
        ("rke2-supervisor", SUPERVISOR, SUPERVISOR, cluster.masters),
    )
    return _HEAD.format(statistics=STATISTICS, alive=ALIVE) + "".join(_listen(*service) for service in services)


def _listen(name: str, port: int, target: int, hosts: tuple[Host, ...]) -> str:
    # A server that goes down takes its connections with it, so that clients reconnect to one that lives.
    servers = "".join(
        f"    server {h.name} {h.address}:{target} check on-marked-down shutdown-sessions\n" for h in hosts
    )
    return (
        f"\nfrontend {name}\n    bind :{port}\n    default_backend {name}\n"
        f"\nbackend {name}\n    balance leastconn\n    option tcp-check\n{servers}"
    )
