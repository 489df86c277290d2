"""What each tool makes of a login: whom it takes the person for, and what that person may do there.

No tool runs here. Each rule is the tool's documented one, read with the settings that this program gives to the tool,
so that a changed setting changes the verdict: of a token's claims, or of the attributes of an assertion.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import yaml

from plan import gitlab, rke2
from plan.plan import Plan
from plan.tools.defectdojo_login import BY_EMAIL, BY_NAME
from plan.tools.model import Release

Claims = Mapping[str, Any]
ADMINISTRATOR = "administrator"  # whoever may do everything in a tool, whatever the tool's own word is


@dataclass(frozen=True)
class Verdict:
    """`person` is the account, or what stands for it in the tool; `rights` is empty for none."""

    person: str
    rights: frozenset[str]


def groups_of(claims: Claims) -> list[str]:
    return list(claims.get("groups") or [])


class Rules:
    """The rules of the tools of one plan, by the id of the client."""

    def __init__(self, plan: Plan, cluster: str = "standalone") -> None:
        self.releases: dict[str, Release] = {release.name: release for release in plan.releases[cluster]}
        self.by_client: dict[str, Callable[[Claims], Verdict]] = {
            "argocd": self.argocd, "argocd-cli": self.argocd, "defectdojo": self.defectdojo, "gitlab": self.gitlab,
            "grafana": self.grafana, "harbor": self.harbor, "headlamp": self.kubernetes, "kubernetes": self.kubernetes,
            "minio": self.minio, "oauth2-proxy": self.oauth2_proxy, "opstella": self.opstella,
            "sonarqube": self.sonarqube, "vault": self.vault,
        }  # fmt: skip

    def job(self, release: str, name: str) -> Any:
        return next(job for job in self.releases[release].jobs if job.name == name)

    def argocd(self, claims: Claims) -> Verdict:
        """Subjects of policies are the claims that `scopes` names (docs/operator-manual/rbac.md)."""
        rbac = self.releases["argo-cd"].values["configs"]["rbac"]
        subjects = [value for scope in yaml.safe_load(rbac["scopes"]) for value in claims.get(scope) or []]
        given = [line.split(", ")[1:] for line in rbac["policy.csv"].splitlines() if line.startswith("g, ")]
        roles = {role for subject, role in given if subject in subjects}
        if rbac["policy.default"]:
            roles.add(rbac["policy.default"])
        return Verdict(claims["sub"], frozenset(ADMINISTRATOR if role == "role:admin" else role for role in roles))

    def grafana(self, claims: Claims) -> Verdict:
        """The first group that fits (`role_attribute_path`, JMESPath); accounts by `sub`, not by address."""
        settings = self.releases["grafana"].values["grafana.ini"]
        assert not settings["auth"].get("oauth_allow_insecure_email_lookup", False)
        oauth = settings["auth.generic_oauth"]
        fits = re.findall(r"contains\(groups\[\*\], '([^']+)'\) && '([^']+)'", oauth["role_attribute_path"])
        role = next((role for group, role in fits if group in groups_of(claims)), None)
        assert oauth["role_attribute_strict"], "whoever has no role does not get in"
        rights = [] if role is None else [ADMINISTRATOR if role == "GrafanaAdmin" else role]
        return Verdict(claims["sub"], frozenset(rights))

    def harbor(self, claims: Claims) -> Verdict:
        """Accounts are known by `sub` and `iss` (src/core/controllers/oidc.go); the group of administrators by its name."""
        told = self.job("harbor", "harbor-provisioning").environment
        members = dict(pair.split("=") for pair in told["MEMBERS"].split())
        rights = {members[group] for group in groups_of(claims) if group in members}
        if told["ADMIN_GROUP"] in groups_of(claims):
            rights.add(ADMINISTRATOR)
        return Verdict(f"{claims['sub']} {claims['iss']}", frozenset(rights))

    def kubernetes(self, claims: Claims) -> Verdict:
        """User and groups by the API server's flags, their rights by the bindings that every server applies."""
        flags = dict(flag.split("=", 1) for flag in rke2.oidc_arguments(claims["iss"]))
        groups = {f"{flags['oidc-groups-prefix']}{group}" for group in claims.get(flags["oidc-groups-claim"]) or []}
        rights = {
            binding["roleRef"]["name"]
            for text in rke2.manifests(claims["iss"]).values()
            for binding in yaml.safe_load_all(text)
            for subject in binding["subjects"]
            if subject["kind"] == "Group" and subject["name"] in groups
        }
        person = f"{flags['oidc-username-prefix']}{claims[flags['oidc-username-claim']]}"
        return Verdict(person, frozenset(ADMINISTRATOR if name == "cluster-admin" else name for name in rights))

    def minio(self, claims: Claims) -> Verdict:
        """Each value of the claim is the name of a policy, MinIO's own ones among them (cmd/iam.go)."""
        made = {name for name in self.job("minio", "minio-provisioning").files if name.startswith("policy.")}
        own = {"consoleAdmin": ADMINISTRATOR, "readwrite": "readwrite", "readonly": "readonly", "writeonly": "writeonly"}
        named = claims.get(self.releases["minio"].values["oidc"]["claimName"]) or []
        rights = {own.get(name, name) for name in named if f"policy.{name}.json" in made or name in own}
        return Verdict(claims["sub"], frozenset(ADMINISTRATOR if name == "platform-admins" else name for name in rights))

    def oauth2_proxy(self, claims: Claims) -> Verdict:
        """Admitted is whoever has one of `allowed_groups`."""
        text = self.releases["oauth2-proxy"].values["config"]["configFile"]
        allowed = json.loads(next(line for line in text.splitlines() if line.startswith("allowed_groups")).split(" = ")[1])
        return Verdict(claims["sub"], frozenset({"reader"} if set(groups_of(claims)) & set(allowed) else ()))

    def opstella(self, claims: Claims) -> Verdict:
        """Its rules are its licensor's; the roles of the matrix, by the groups of the token."""
        (client,) = self.releases["opstella"].clients
        rights = {client.roles[group] for group in groups_of(claims) if group in client.roles}
        return Verdict(claims["sub"], frozenset(ADMINISTRATOR if role == "admin" else role for role in rights))

    def vault(self, claims: Claims) -> Verdict:
        """The entity's alias is `user_claim`; groups by `groups_claim` have a policy of the same name."""
        config = json.loads(self.job("vault", "vault-setup").files["vault.json"])
        (role,) = (item["data"] for item in config["items"] if item["path"] == "auth/oidc/role/default")
        policies = config["groups"]["policies"]
        rights = {policy for group in claims.get(role["groups_claim"]) or [] for policy in policies.get(group, ())}
        return Verdict(
            claims[role["user_claim"]],
            frozenset(ADMINISTRATOR if policy == "platform-admins" else policy for policy in rights),
        )

    def sonarqube(self, found: Claims) -> Verdict:
        """Login and groups are attributes of the assertion; a group is one of SonarQube's of the same name."""
        config = json.loads(self.job("sonarqube", "sonarqube-settings").files["sonarqube.json"])
        settings = config["settings"]
        (login,) = found[settings["sonar.auth.saml.user.login"]]
        names = found.get(settings["sonar.auth.saml.group.name"]) or []
        rights = {right for name in names for right in config["groups"].get(name, ())}
        return Verdict(login, frozenset(ADMINISTRATOR if right == "admin" else right for right in rights))

    def gitlab(self, claims: Claims) -> Verdict:
        """An account is found by its identity, then by address if logins are linked so (lib/gitlab/auth/o_auth/user.rb)."""
        text = gitlab.gitlab_rb("git.example.com", "19.3.1", gitlab.SignIn(issuer=claims["iss"], secret="s"))
        linked = re.search(r"omniauth_auto_link_user'\] = (.*)", text)
        by_address = linked is not None and "openid_connect" in linked[1]
        if by_address and claims["email"] in ("opstella-automation@noreply.git.example.com", "admin@example.com"):
            return Verdict("opstella-automation", frozenset({ADMINISTRATOR}))
        uid = re.search(r"'uid_field' => '(\w+)'", text)
        assert uid is not None
        return Verdict(claims[uid[1]], frozenset({"user"}))

    def defectdojo(self, claims: Claims) -> Verdict:
        """Known by `sub`; the first login is joined by the steps of its pipeline (provision/defectdojo.py made the accounts)."""
        values = self.releases["defectdojo"].values
        people = json.loads(self.job("defectdojo", "defectdojo-settings").files["defectdojo.json"])["people"]
        accounts = {name: (one["email"], "platform-admins" in one["groups"]) for name, one in people.items()}
        accounts["admin"] = ("admin@defectdojo.local", True)
        scope: dict[str, Any] = {"SOCIAL_AUTH_PIPELINE": (BY_EMAIL,)}
        exec(values["localsettingspy"], scope)
        assert scope["SOCIAL_AUTH_PIPELINE"] == (BY_NAME,), "the address joins nobody"

        class User(SimpleNamespace):
            social_auth = SimpleNamespace(filter=lambda provider: SimpleNamespace(exists=lambda: False))

        def found(username: str) -> SimpleNamespace:
            return SimpleNamespace(first=lambda: User(username=username) if username in accounts else None)

        model = SimpleNamespace(objects=SimpleNamespace(filter=found))
        storage = SimpleNamespace(user=SimpleNamespace(user_model=lambda: model))
        backend = SimpleNamespace(name="oidc", strategy=SimpleNamespace(storage=storage))
        key = values["extraConfigs"]["DD_SOCIAL_AUTH_OIDC_USERNAME_KEY"]
        joined = scope[BY_NAME.rpartition(".")[2]](backend, {"username": claims[key], "email": claims["email"]})
        if joined is None:
            return Verdict(f"new {claims['sub']}", frozenset({"Reader"}))
        name = joined["user"].username
        return Verdict(name, frozenset({ADMINISTRATOR} if accounts[name][1] else {"user"}))
