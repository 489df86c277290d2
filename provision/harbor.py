"""Harbor's own settings, by its API: login through Keycloak, projects that hand on public registries, the robot of CI.

Idempotent: compares, changes what differs, says what it changed. A registry, a project or a robot of a wanted name that
this stack did not make is refused. Harbor never shows the client's secret again, so a global label keeps a fingerprint
of the one that was set last; and never the robot's: whether that is the one of the stack, it tells by a login.

Environment: `HARBOR_URL`, `OIDC_ENDPOINT` (the realm's URL), `OIDC_CLIENT`, `ADMIN_GROUP`, `PROXIED` (registries,
separated by spaces), `MEMBERS` (group=role pairs of the project library); where groups of a GitLab push, `ROBOT` (the
robot's name, as Harbor calls it) and `UNTIL` (the ISO date at which it expires), where none does, `FORMER_ROBOT`. If it
sets the variables of pipelines, what ci_variables.py reads. Secrets: `admin` (HARBOR_ADMIN_PASSWORD), `oidc`
(clientSecret), with `ROBOT` also `harbor-robot` (password).
"""

from __future__ import annotations

import hashlib
import os
import sys
from datetime import date, datetime
from typing import Any

from ci_variables import Variables
from client import Client, Failure, Refused, Report, basic, environment, hide, main, secret

MARK = "made by the Opstella stack"
LABEL = "opstella-login"
PAGE = {"page_size": "100"}
BY_NAME = {"X-Is-Resource-Name": "true"}
SHARED = "library"  # the project that every Harbor has
PUSH = ("pull", "push")  # what the robot may do with the repositories of SHARED
OIDC_GROUP = 3  # the type of a group that comes from the identity provider
ROLES = {"projectAdmin": 1, "developer": 2, "guest": 3, "maintainer": 4, "limitedGuest": 5}
# Registry: Harbor's type of it, and where it answers. A proxy project takes only the types that core's environment permits
# (PERMITTED_REGISTRY_TYPES_FOR_PROXY_CACHE, fixed by the chart): `quay` is not among them.
UPSTREAM = {
    "docker.io": ("docker-hub", "https://hub.docker.com"),
    "quay.io": ("docker-registry", "https://quay.io"),
    "ghcr.io": ("github-ghcr", "https://ghcr.io"),
    "registry.k8s.io": ("docker-registry", "https://registry.k8s.io"),
}


class Harbor:
    """The API, as Harbor's first administrator."""

    def __init__(self, base: str, report: Report) -> None:
        password = secret("admin", "HARBOR_ADMIN_PASSWORD")
        self.api = Client(f"{base}/api/v2.0", headers={"Authorization": basic("admin", password)})
        self.docker = Client(base)  # what `docker login` asks
        self.where, self.report = self.api.base, report

    def listed(self, path: str) -> list[dict[str, Any]]:
        """Everything below `path`, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.api.get(path, query={**PAGE, "page": str(len(found) // 100 + 1)}) or []
            found += page
            if len(page) < 100:
                return found

    # ---- login

    def login(self) -> None:
        """People log in through the realm; `admin` stays a user of Harbor's own, for when Keycloak is away."""
        client_secret = secret("oidc", "clientSecret")
        wanted = {
            "auth_mode": "oidc_auth",
            "primary_auth_mode": True,
            "oidc_name": "Keycloak",
            "oidc_endpoint": environment("OIDC_ENDPOINT"),
            "oidc_client_id": environment("OIDC_CLIENT"),
            "oidc_groups_claim": "groups",
            "oidc_admin_group": environment("ADMIN_GROUP"),
            "oidc_scope": "openid,profile,email",
            "oidc_user_claim": "preferred_username",
            "oidc_verify_cert": True,
            "oidc_auto_onboard": True,
            "self_registration": False,
            "project_creation_restriction": "adminonly",
        }
        now = self.api.get("/configurations")
        changes: dict[str, Any] = {k: v for k, v in wanted.items() if now.get(k, {}).get("value") != v}
        fixed = [name for name in changes if not now.get(name, {}).get("editable", True)]
        if fixed:
            raise Failure(
                f"Harbor does not let {', '.join(fixed)} be changed",
                f"{self.where}/configurations",
                "they are set by core's environment (CONFIG_OVERWRITE_JSON)",
                "take core.configureUserSettings out of the values of opstella:tools.harbor",
            )
        fingerprint = hashlib.sha256(f"opstella {client_secret}".encode()).hexdigest()[:16]
        label = next((found for found in self.labels() if found["name"] == LABEL), None)
        fresh = label is None or label.get("description") != fingerprint
        if fresh:
            changes["oidc_client_secret"] = client_secret
        if not changes:
            return
        try:
            self.api.put("/configurations", changes)
        except Refused as refused:
            if refused.status == 400 and "auth_mode" in changes:
                raise Failure(
                    "Harbor keeps its way of logging in",
                    f"{self.where}/configurations",
                    f"it has users of its own besides admin ({refused.why})",
                    "remove those users (Administration, Users), then run the Job again",
                ) from None
            raise
        self.report.did(f"login: {', '.join(sorted(changes))}")
        if fresh:  # after the settings: a run that was cut short sets the secret once more
            data = {"name": LABEL, "description": fingerprint, "color": "#0065AB", "scope": "g"}
            if label is None:
                self.api.post("/labels", data)
            else:
                self.api.put(f"/labels/{label['id']}", data)

    def labels(self) -> list[dict[str, Any]]:
        return self.api.get("/labels", query={"scope": "g", "name": LABEL, **PAGE}) or []

    # ---- the mirror

    def mirror(self, name: str) -> None:
        """A project `name`, open to everybody, that fetches from the registry `name` what it does not hold yet."""
        if name not in UPSTREAM:
            raise Failure(
                f"the registry {name} is unknown",
                "PROXIED",
                "this script does not know its type",
                f"name some of {', '.join(UPSTREAM)}",
            )
        registry = self.upstream(name)
        exists = self.api.request("HEAD", "/projects", query={"project_name": name}, also=(404,)).status != 404
        if not exists:
            data = {"project_name": name, "registry_id": registry, "metadata": {"public": "true"}, "storage_limit": -1}
            try:
                self.api.post("/projects", data)
            except Refused as refused:
                if refused.status != 400:
                    raise
                raise Failure(
                    f"Harbor refuses a project that hands on {UPSTREAM[name][1]}",
                    f"{self.where}/projects",
                    refused.why,
                    f"permit the type {UPSTREAM[name][0]} in core's PERMITTED_REGISTRY_TYPES_FOR_PROXY_CACHE"
                    " (opstella:tools.harbor.values, core.extraEnvVars), or let the nodes do without the mirror"
                    " (opstella:kubernetes.registryMirror: none)",
                ) from None
            self.report.did(f"project {name}: made, it hands on {UPSTREAM[name][1]}")
            return
        project = self.api.get(f"/projects/{name}", headers=BY_NAME)
        if project.get("registry_id") != registry:
            raise Failure(
                f"the project {name} exists and was not made by this stack",
                f"{self.where}/projects/{name}, there since {project.get('creation_time', 'some time')}",
                f"it belongs to {project.get('owner_name') or 'somebody'}, holds {project.get('repo_count', 0)}"
                f" repositories and hands on another registry, or none",
                "remove it, or let the cluster do without the mirror (opstella:kubernetes.registryMirror: none)",
            )
        if project["metadata"].get("public") != "true":
            self.api.put(f"/projects/{name}", {"metadata": {"public": "true"}}, headers=BY_NAME)
            self.report.did(f"project {name}: public again")

    def upstream(self, name: str) -> int:
        """The number of the registry `name`, made if it is not there."""
        kind, url = UPSTREAM[name]
        wanted = {"name": name, "type": kind, "url": url, "insecure": False, "description": MARK}
        found = self.registry(name)
        ours = found is not None and found.get("description") == MARK
        if found is not None and ours and found["type"] != kind and not self.handed_on(found):
            self.retire(found, kind)
            found = None
        if found is None:
            try:
                self.api.post("/registries", wanted)
            except Refused as refused:
                if refused.status != 400:
                    raise
                raise Failure(
                    f"Harbor cannot reach {url}",
                    f"{self.where}/registries",
                    refused.why,
                    "let its pods out to there, or let the nodes do without (opstella:kubernetes.registryMirror: none)",
                ) from None
            self.report.did(f"registry {name}: made")
            found = self.registry(name)
        if found is None:
            raise Failure(
                f"the registry {name} was made and is not there", f"{self.where}/registries", "unknown", "run again"
            )
        if found.get("description") != MARK:
            raise Failure(
                f"the registry {name} exists and was not made by this stack",
                f"{self.where}/registries/{found['id']}, there since {found.get('creation_time', 'some time')}",
                f"its description is not '{MARK}'",
                f"give it that description to have it taken over as {url}, or rename it",
            )
        if found["url"] != url or found.get("insecure"):
            self.api.put(
                f"/registries/{found['id']}", {"name": name, "url": url, "insecure": False, "description": MARK}
            )
            self.report.did(f"registry {name}: {url}")
        return int(found["id"])

    def handed_on(self, registry: dict[str, Any]) -> bool:
        """Whether the project of its name hands `registry` on already, so that its type has been permitted."""
        project = self.api.find(f"/projects/{registry['name']}", headers=BY_NAME)
        return project is not None and project.get("registry_id") == registry["id"]

    def retire(self, registry: dict[str, Any], kind: str) -> None:
        """Removes this stack's own registry of another type, so that it can be made again: Harbor never changes a type."""
        name = registry["name"]
        try:
            self.api.delete(f"/registries/{registry['id']}")
        except Refused as refused:
            raise Failure(
                f"the registry {name} is of another type",
                f"{self.where}/registries/{registry['id']}",
                f"its type is {registry['type']}, this stack wants {kind}, and Harbor does not let it be removed ({refused.why})",
                "remove what uses it (projects, replication rules), then run the Job again",
            ) from None
        self.report.did(f"registry {name}: removed, its type was {registry['type']}")

    def registry(self, name: str) -> dict[str, Any] | None:
        return next((found for found in self.listed("/registries") if found["name"] == name), None)

    # ---- groups

    def member(self, group: str, role: str) -> None:
        """`group` of the identity provider has `role` in the project library, if it has none there yet."""
        path = f"/projects/{SHARED}/members"
        members = self.api.get(path, query={"entityname": group, **PAGE}, headers=BY_NAME) or []
        if any(m["entity_type"] == "g" and m["entity_name"] == group for m in members):
            return
        data = {"role_id": ROLES[role], "member_group": {"group_name": group, "group_type": OIDC_GROUP}}
        self.api.post(path, data, headers=BY_NAME)
        self.report.did(f"project {SHARED}: the group {group} is {role}")

    # ---- pipelines

    def robot(self, whole: str, password: str) -> None:
        """The login by which pipelines push to the project library: Harbor calls it `whole`, its secret is `password`."""
        name = whole.rpartition("+")[2]
        now = self.found(name)
        access = [{"resource": "repository", "action": action} for action in PUSH]
        permissions = [{"kind": "project", "namespace": SHARED, "access": access}]
        until = date.fromisoformat(environment("UNTIL"))
        # Harbor counts from the day on which the robot was made.
        made_on = date.today() if now is None else datetime.fromisoformat(now["creation_time"]).date()
        days = max((until - made_on).days, 1)
        wanted = {"level": "project", "description": MARK, "duration": days, "disable": False, "permissions": permissions}
        if now is None:
            now = self.api.post("/robots", {"name": name, **wanted})
            hide(now["secret"])  # of Harbor's own making, and not kept
            self.report.did(f"robot {now['name']}: made")
        else:
            if now.get("description") != MARK:
                raise Failure(
                    f"the robot {now['name']} exists and was not made by this stack",
                    f"{self.where}/robots/{now['id']}, there since {now.get('creation_time', 'some time')}",
                    f"its description is not '{MARK}', and somebody uses its secret",
                    "remove it; or hand it over, and its secret will be made anew: give it that description",
                )
            if now["duration"] != days or now.get("disable") or rights(now) != rights(wanted):
                self.api.put(f"/robots/{now['id']}", {"name": now["name"], **wanted})
                self.report.did(f"robot {now['name']}: its rights, until {until}")
        if not self.lets_in(now["name"], password):
            self.api.request("PATCH", f"/robots/{now['id']}", data={"secret": password})
            self.report.did(f"robot {now['name']}: its secret set")
        if now["name"] != whole:
            raise Failure(
                f"Harbor calls the robot of pipelines {now['name']}, and they are told {whole}",
                f"{self.where}/configurations, robot_name_prefix",
                "somebody changed the prefix of robots' names",
                "set it back (Administration, Configuration, System Settings, Robot Name Prefix), then run the Job again",
            )

    def found(self, name: str) -> dict[str, Any] | None:
        """The robot `name` of the project library, with whatever prefix."""
        project = self.api.get(f"/projects/{SHARED}", headers=BY_NAME)["project_id"]
        robots = self.api.get("/robots", query={"q": f"Level=project,ProjectID={project}", **PAGE}) or []
        return next((one for one in robots if one["name"].endswith(f"{SHARED}+{name}")), None)

    def dismiss(self, whole: str) -> None:
        """Removes the robot of this stack, by whose secret somebody might still push: no group is to have it."""
        one = self.found(whole.rpartition("+")[2])
        if one is not None and one.get("description") == MARK:
            self.api.delete(f"/robots/{one['id']}")
            self.report.did(f"robot {one['name']}: removed, no group of GitLab pushes")

    def lets_in(self, username: str, password: str) -> bool:
        """Whether `docker login` would work."""
        answer = self.docker.request(
            "GET",
            "/service/token",
            query={"service": "harbor-registry"},
            headers={"Authorization": basic(username, password)},
            also=(401,),
        )
        return answer.status == 200


def rights(robot: dict[str, Any]) -> set[tuple[str, str, str]]:
    """What `robot` may do, where."""
    return {
        (scope["namespace"], one["resource"], one["action"])
        for scope in robot.get("permissions") or []
        for one in scope.get("access") or []
    }


def run(report: Report) -> None:
    harbor = Harbor(environment("HARBOR_URL"), report)
    harbor.api.request("GET", "/ping")
    harbor.login()
    for name in environment("PROXIED").split():
        harbor.mirror(name)
    for pair in environment("MEMBERS", "").split():
        group, _, role = pair.partition("=")
        harbor.member(group, role)
    # What is somebody else's there is refused before the robot gets another secret.
    variables = Variables(report) if "GITLAB_URL" in os.environ else None
    if "ROBOT" in os.environ:
        harbor.robot(environment("ROBOT"), secret("harbor-robot", "password"))
    elif "FORMER_ROBOT" in os.environ:
        harbor.dismiss(environment("FORMER_ROBOT"))
    if variables:
        variables.publish()


if __name__ == "__main__":
    sys.exit(main(run))
