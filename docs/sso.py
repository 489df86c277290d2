"""`python -m docs.sso`: writes docs/sso.md, the matrix of single sign-on, from the clients that the catalogue declares.

`--check` writes nothing and exits 1 when the page differs from the file.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from config.load import from_stack_file
from config.services import OpstellaApp, OpstellaPart
from docs.generated import write
from plan.checks import problems_beside
from plan.plan import Plan, build
from plan.tools import externals, keycloak
from plan.tools.inputs import tool_inputs
from plan.tools.model import ToolInputs
from plan.tools.realm import GROUPS

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs/sso.md"

HEAD = """\
# Single sign-on

Everybody logs in at Keycloak, in the realm that `opstella:identity.realm` names. A provisioning Job makes it and keeps it as it
is declared: groups, one client a tool with a secret of its own, the claim `groups`. `python -m docs.sso` makes this page from
the same declarations; `tests/lab/test_keycloak.py` logs in as a member of each group to each client below on the real
Keycloak, and holds every cell to the tokens that it gets.

## Who may do what

A cell is what members of the group are in the tool, in the tool's own words. An empty cell: they get no token for it, and
Keycloak tells them so. Whoever is in no group gets into no tool; Keycloak's own page for one's account (password, second
factor) is open to every user of the realm.

"""
CLIENTS = """\

## Clients

`public` clients have no secret. All but SAML clients use the authorization code flow and no other; PKCE: they must prove
that who redeems a code is who asked for it. The names are those of the standalone architecture with its example domain.

"""
REST = """\

Loki, Tempo and Mimir know no login: Traefik asks oauth2-proxy about every request to them, and oauth2-proxy sends whoever has
no session to Keycloak. At these names only the paths that read are routed, by which nobody writes, deletes or stops
anything, the password of another cluster's Grafana included. Inside of the clusters they are open without a login to the
tools that write to them. Grafana is none of these, because it sends a data source what anybody with a login asks it to: it
reads through Traefik, by methods and paths that change nothing ([which](observability.md#what-grafana-may-ask)). So editors
of Grafana, `developers`, change neither rules of Mimir and Loki nor silences of Alertmanager there. **Whoever may log in to
it, `viewers` too, can query all data sources**; roles for single data sources are a matter of its paid editions.

## What decides who somebody is

Nothing that users can change themselves:

- **User name and e-mail address** are for administrators of the realm to change. The Job sets that in the realm's user
  profile, and switches off the required action by which users would change their address. A user's first and last name
  are theirs; no tool knows people by them.
- **Groups**: the claim `groups` is not made of the names of groups. Each of the three top-level groups has a role of the
  client `opstella-groups`, by which nobody logs in, and the claim lists these roles. A group called `platform-admins`
  elsewhere in the tree, or one that is called like a policy of MinIO, gives nothing; the groups below `developers`
  give what `developers` gives. The Job takes these roles from everything but their groups.
- **Tokens** are for one client (`aud`), are made of the scopes in the list below, and do not outlive the session: the
  stack's clients have no optional scopes, so that nobody can ask for an offline token. Those of other clients end after
  30 days, or after 7 unused. Keycloak's own clients (`admin-cli` and others) give no token for a password.

What each tool takes for the person, and what for the rights:

| tool | the person | the rights |
|---|---|---|
| Argo CD | `sub` | `groups` |
| DefectDojo | `sub`; the first login joins an account that the settings name by `preferred_username` | the account's, in DefectDojo |
| GitLab | `preferred_username`; never an e-mail address | the account's, in GitLab |
| Grafana | `sub` | `groups`, at each login |
| Harbor | `sub` and the issuer | `groups`, at each login |
| Kubernetes API, Headlamp | `oidc:` and `preferred_username` | `oidc:` and each of `groups` |
| Loki, Tempo, Mimir | nobody | `groups`, every four minutes |
| MinIO | `sub` | `groups`, each the name of a policy |
| SonarQube | attribute `login` (the user name) | attribute `groups`, at each login |
| Vault | `preferred_username` | `groups` |

**GitLab accounts that are there before their first login by Keycloak** are not joined by their address. Their owner logs in
with GitLab's own password and connects the account (Preferences, Account, Service sign-in), or an administrator adds
the identity `openid_connect` with the user name as identifier (Admin, Users, Identities). Accounts that logged in by
Keycloak before stay connected. The accounts by which the platform's tools use GitLab have an address that nobody knows; logins
that were connected to them are removed.

`tests/lab/test_keycloak_attacks.py` tries each login on the real Keycloak as an attacker: with a changed address, user name or
first name, a group given to oneself, a group of an administrators' name below another, another client's token, and an old
session after leaving the group. Keycloak's answers there are real. What a tool makes of the token is that tool's documented
rule, applied to the real token by the settings that this program gives to the tool; no tool runs in these tests.

## How a group is kept out

Keycloak has no switch for it. Each client has a login flow of its own (`opstella login of …`, one for each set of groups): it
logs the user in as ever, and then denies access to whoever lacks the role `login_…`, which the groups carry. So the answer
is Keycloak's, before any token; what a tool checks by itself comes on top. A session that began before a user left a group lasts
until its tokens are renewed (five minutes) or, in a tool with sessions of its own, until that ends: end it in Keycloak's console
(*Sessions*) and in the tool. The renewed tokens lack the group, so that tools that read it each time let nobody in. A login that another identity provider brokers would pass beside the gate, so the flows offer none:
connect a directory as a *user federation* instead. Keycloak counts being turned away as a failed login; thirty of them within
twelve hours lock the account for a minute and longer.

## Users

`opstella:identity.users` are the first ones. Each gets a generated password, in the output `credentials` under `user-NAME`, and
has to change it at the first login. They are made once: what is changed in Keycloak afterwards stays, and taking one out
of the settings does not delete the account. Names that tools use for accounts of their own, such as `admin`, are refused.

The administrator of Keycloak itself (`credentials.keycloak`, realm `master`) is no member of the realm: keep it for
emergencies. That realm has the same password policy, lock-out and event log as the tools' realm, and is closed at
Keycloak's public name (403): its login, console and API. To use the console, set `opstella:identity.masterConsole: true`, run
`make up`, and take it back afterwards. Without a browser, in Keycloak's own pod:

    kubectl -n keycloak exec -ti keycloak-0 -- /opt/keycloak/bin/kcadm.sh config credentials --server http://localhost:8080 \\
      --realm master --user admin --config /tmp/kcadm.config      # asks for the password
    kubectl -n keycloak exec -ti keycloak-0 -- /opt/keycloak/bin/kcadm.sh get users -r {realm} --config /tmp/kcadm.config

Members of the realm who have roles of its client `realm-management` use the realm's own console,
`/admin/{realm}/console/`, at the public name.

## A realm that exists

The realm, and each client, carries the attribute `opstella.stack` with the stack's domain. A realm of the wanted name without
it is refused; the failed Job's log says what it is called and how many clients and users it has. Name another one in
`opstella:identity.realm`, or take it over with `opstella:identity.adopt: true`: then its settings and clients of the same
names become the declared ones, its users stay, and clients of other names are left alone. **Members of its top-level groups
`platform-admins`, `developers` and `viewers` get these groups' rights in all tools**, wherever the members come from (a
directory, too): look at them before. Refused is a realm in which a client scope that the tools share (`profile`, `email` and others)
has a mapper of its own for one of the claims above. Realm settings, mappers and clients that were
changed by hand are put back when the Job runs next; clients that the catalogue no longer has are removed.

## kubectl

The API server of every cluster takes Keycloak's tokens for the client `kubernetes`. Users are `oidc:` and their name, groups
`oidc:` and the group's; ClusterRoleBindings give `oidc:platform-admins` the ClusterRole `cluster-admin`, and
`oidc:developers` and `oidc:viewers` `view`, which reads everything but Secrets and changes nothing. Where developers work, in
the namespaces of `opstella:kubernetes.projects`, they have `edit` ([security](security.md#projects)). With
[kubelogin](https://github.com/int128/kubelogin) as the kubectl plugin `oidc-login`:

    lab/toolchain/pulumi stack output ca_bundle > opstella-ca.crt
    kubectl config set-cluster standalone --server=https://LOAD-BALANCER:6443 --embed-certs --certificate-authority=CLUSTER-CA.crt
    kubectl config set-credentials opstella --exec-api-version=client.authentication.k8s.io/v1 --exec-interactive-mode=IfAvailable \\
      --exec-command=kubectl --exec-arg=oidc-login --exec-arg=get-token --exec-arg=--oidc-issuer-url={issuer} \\
      --exec-arg=--oidc-client-id=kubernetes --exec-arg=--oidc-pkce-method=S256 --exec-arg=--oidc-extra-scope=groups \\
      --exec-arg=--certificate-authority=opstella-ca.crt
    kubectl config set-context opstella --cluster=standalone --user=opstella && kubectl config use-context opstella
    kubectl auth whoami

`LOAD-BALANCER` is in the output `kubernetes_api`. `CLUSTER-CA.crt` is the cluster's own CA, the field
`certificate-authority-data` of a kubeconfig of the output `kubeconfigs`, decoded from Base64. Those kubeconfigs are
cluster-admin's and work without Keycloak: keep them for emergencies.
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One client: `roles` maps each group that may log in to what it is in the tool."""

    client_id: str
    name: str
    protocol: str
    public: bool
    pkce: bool
    roles: Mapping[str, str]
    redirect_uris: tuple[str, ...]


def inputs_of(plan: Plan) -> ToolInputs:
    """The inputs of the cluster that carries Keycloak. Raises StopIteration where none does."""
    name = next(c for c, releases in plan.releases.items() if any(r.name == keycloak.NAME for r in releases))
    cluster = next(c for c in plan.topology.clusters if c.name == name)
    return tool_inputs(plan.settings, plan.topology, cluster)


def rows(plan: Plan) -> list[Row]:
    """Every client of the platform's realm, by id."""
    declared = [client for releases in plan.releases.values() for r in releases for client in r.clients]
    every = {client.client_id: client for client in (*declared, *externals.clients(inputs_of(plan)))}
    return [
        Row(
            client_id=client.client_id,
            name=client.name,
            protocol=client.protocol,
            public=client.public,
            pkce=client.pkce or client.public,
            roles=client.roles,
            redirect_uris=client.redirect_uris,
        )
        for _, client in sorted(every.items())
    ]


def reference() -> Plan:
    """The standalone architecture, with Opstella's own services, whose images a stack has to name."""
    part = OpstellaPart(image="registry.example.com/opstella:1.0.0")
    settings = from_stack_file(ROOT / "Pulumi.standalone.yaml", beyond=problems_beside)
    named = settings.model_copy(update={"opstella": OpstellaApp(ui=part, core=part, clear_session=part)})
    return build(named, "opstella/standalone")


def page(plan: Plan) -> str:
    """The whole page."""
    found = rows(plan)
    matrix = [f"| tool | {' | '.join(f'`{group}`' for group in GROUPS)} |\n|---|{'---|' * len(GROUPS)}\n"]
    matrix += [f"| {row.name} | {' | '.join(row.roles.get(group, '') for group in GROUPS)} |\n" for row in found]
    clients = ["| client | tool | protocol | redirect URIs |\n|---|---|---|---|\n"]
    for row in found:
        protocol = "SAML" if row.protocol == "saml" else "OIDC"
        more = "".join(f", {word}" for word, there in (("public", row.public), ("PKCE", row.pkce)) if there)
        uris = "<br>".join(f"`{uri}`" for uri in row.redirect_uris)
        clients.append(f"| `{row.client_id}` | {row.name} | {protocol}{more} | {uris} |\n")
    inputs = inputs_of(plan)
    issuer = f"https://{inputs.all_hosts[keycloak.DOMAIN_KEY]}/realms/{inputs.identity.realm}"
    return HEAD + "".join(matrix) + CLIENTS + "".join(clients) + REST.replace("{issuer}", issuer).replace("{realm}", inputs.identity.realm)


if __name__ == "__main__":
    sys.exit(write("sso", FILE, page(reference()), __doc__, "the catalogue"))
