"""What stands outside the catalogue and needs its providers: GitLab on its machine, backups of databases, kubectl."""

from __future__ import annotations

from plan.tools.model import ToolInputs
from plan.tools.needs import Bucket, OidcClient, StorageAccess

DATABASE_BACKUPS = "database-backups"  # the bucket, and the user who writes there
GITLAB_BUCKETS = (
    "artifacts", "backups", "ci-secure-files", "dependency-proxy", "lfs", "mr-diffs", "packages", "pages", "registry",
    "terraform-state", "uploads",
)  # fmt: skip
KUBERNETES = "kubernetes"  # the client of kubectl and Headlamp, whose tokens the API server accepts


def storage(inputs: ToolInputs, *, first: bool) -> tuple[StorageAccess, ...]:
    """Credentials of one object store; GitLab's are in the `first` of the platform."""
    stored = (
        StorageAccess(user=DATABASE_BACKUPS, buckets=(Bucket(name=DATABASE_BACKUPS),), secret=None),
    )
    if not first or inputs.gitlab is None:
        return stored
    buckets = tuple(Bucket(name=f"gitlab-{name}") for name in GITLAB_BUCKETS)
    return (StorageAccess(user="gitlab", buckets=buckets, secret=None), *stored)


def clients(inputs: ToolInputs) -> tuple[OidcClient, ...]:
    """Clients of the realm that no release of the catalogue is."""
    kubectl = OidcClient(
        client_id=KUBERNETES,
        name="Kubernetes API",
        # kubelogin listens on one of these ports of the user's own machine.
        redirect_uris=("http://localhost:8000", "http://localhost:18000"),
        roles={"platform-admins": "cluster-admin", "developers": "view; edit in their projects", "viewers": "view"},
        public=True,
        pkce=True,
    )
    host = inputs.all_hosts.get("gitlab")
    if host is None:
        return (kubectl,)
    gitlab = OidcClient(
        client_id="gitlab",
        name="GitLab",
        redirect_uris=(f"https://{host}/users/auth/openid_connect/callback",),
        # Roles by group are a feature of GitLab's paid editions: an administrator makes administrators.
        roles={"platform-admins": "user", "developers": "user", "viewers": "user"},
        pkce=True,
    )
    return (gitlab, kubectl)
