"""The realm of all tools, as the data that provision/keycloak.py applies: settings, groups, gates, clients, users.

Who somebody is and what they may do is decided by what only administrators change: the user name, the e-mail address,
and a role of the client ROLES_CLIENT that each top-level group of GROUPS has. The claim `groups` is made of these roles
and not of the names of groups: a group of an administrators' name anywhere below another group, or in a directory, has
no such role. The groups below one of GROUPS inherit its role.

Keycloak has no switch that keeps a group out of a client. What it has is a login flow of a client's own: here a `gate`
is such a flow, one for each set of groups that some client admits. It logs the user in as the realm's own flow does,
then denies access to whoever lacks the gate's role, which its groups carry. Nobody outside of the groups gets a token.

A representation holds only what matters here, in the words of Keycloak's Admin REST API (26.5); whatever is not named
keeps its value in the server. No secret stands in it: a client's is the key `<client id>` of the mounted secret
`clients`, a user's first password the key `<name>` of `users`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from plan.tools.model import ToolInputs
from plan.tools.needs import OidcClient

GROUPS = ("platform-admins", "developers", "viewers")
GROUPS_SCOPE, SAML_GROUPS_SCOPE = "groups", "opstella-groups-saml"
ROLES_CLIENT = "opstella-groups"
"""A client by which nobody logs in: its roles, named as the groups that have them, are the claim `groups`."""
MARK = "opstella.stack"
"""Attribute of a realm, and of a client, that says whose it is; its value is the stack's domain."""

# Of every client, by their names in a new realm of Keycloak 26.
# Without `roles`: it names every role in the token, and every client of which somebody has one as an audience.
_SCOPES = ("acr", "basic", "email", "profile", "web-origins", GROUPS_SCOPE)
_DAY, _HOUR, _MINUTE = 86400, 3600, 60

SETTINGS: dict[str, Any] = {
    "enabled": True,
    # Requests from private addresses may come in plain HTTP: those of tools inside of the cluster.
    "sslRequired": "external",
    "registrationAllowed": False,
    "resetPasswordAllowed": False,  # needs a mail server
    "rememberMe": True,
    "verifyEmail": False,
    "loginWithEmailAllowed": True,
    "duplicateEmailsAllowed": False,
    "editUsernameAllowed": False,
    "passwordPolicy": "length(12) and notUsername(undefined) and notEmail(undefined) and passwordHistory(3)",
    "bruteForceProtected": True,
    "permanentLockout": False,
    "failureFactor": 30,
    "waitIncrementSeconds": _MINUTE,
    "maxFailureWaitSeconds": 15 * _MINUTE,
    "maxDeltaTimeSeconds": 12 * _HOUR,
    # Keycloak counts whoever a gate turns away as a failed login: two clicks within a second must lock nobody out.
    "quickLoginCheckMilliSeconds": 0,
    "defaultSignatureAlgorithm": "RS256",
    "revokeRefreshToken": False,
    "accessTokenLifespan": 5 * _MINUTE,
    "accessCodeLifespan": _MINUTE,
    "accessCodeLifespanLogin": 30 * _MINUTE,
    "ssoSessionIdleTimeout": 2 * _HOUR,
    "ssoSessionMaxLifespan": 10 * _HOUR,
    # Clients of this stack get no offline tokens; this bounds those of all others.
    "offlineSessionIdleTimeout": 7 * _DAY,
    "offlineSessionMaxLifespanEnabled": True,
    "offlineSessionMaxLifespan": 30 * _DAY,
    "eventsEnabled": True,
    "eventsListeners": ["jboss-logging"],
    "eventsExpiration": 30 * _DAY,
    "adminEventsEnabled": True,
    "adminEventsDetailsEnabled": False,  # details would repeat what people typed
}

ADMINISTRATORS_ONLY = ("username", "email")
"""Attributes of a user that only administrators may change: tools know people by them."""
CHANGES_OF_EMAIL = ("UPDATE_EMAIL",)
"""Required actions by which users change their e-mail address: switched off."""
BUILT_IN = ("account", "account-console", "admin-cli", "broker", "realm-management", "security-admin-console")
"""Keycloak's own clients of every realm."""
# Of the realm `master`, in which only Keycloak's first administrator is; the Job itself logs in by its client admin-cli.
_MASTER = (
    "sslRequired", "registrationAllowed", "resetPasswordAllowed", "passwordPolicy", "bruteForceProtected",
    "permanentLockout", "failureFactor", "waitIncrementSeconds", "maxFailureWaitSeconds", "maxDeltaTimeSeconds",
    "offlineSessionIdleTimeout", "offlineSessionMaxLifespanEnabled", "offlineSessionMaxLifespan",
    "eventsEnabled", "eventsListeners", "eventsExpiration", "adminEventsEnabled", "adminEventsDetailsEnabled",
)  # fmt: skip


def realm(clients: Sequence[OidcClient], inputs: ToolInputs) -> dict[str, Any]:
    """The whole realm; the same clients give the same data, in whatever order they come."""
    identity = inputs.identity
    ordered = sorted(clients, key=lambda client: client.client_id)
    return {
        "realm": identity.realm,
        "mark": {"name": MARK, "value": inputs.domain},
        "adopt": identity.adopt,
        "settings": {"displayName": f"Opstella {inputs.domain}", **SETTINGS},
        "master": {name: SETTINGS[name] for name in _MASTER},
        "administrators_only": list(ADMINISTRATORS_ONLY),
        "actions_off": list(CHANGES_OF_EMAIL),
        "built_in": list(BUILT_IN),
        "groups": list(GROUPS),
        "roles_client": _roles_client(),
        "scopes": [_groups_scope(), _saml_groups_scope()],
        "gates": [_gate(groups) for groups in sorted({admitted(client) for client in ordered}, key=_order)],
        "clients": [_client(client) for client in ordered],
        "users": [
            {
                "username": name,
                "email": user.email or f"{name}@{inputs.domain}",
                "firstName": user.first_name,
                "lastName": user.last_name,
                "groups": sorted(user.groups),
            }
            for name, user in sorted(identity.users.items())
        ],
    }


def admitted(client: OidcClient) -> tuple[str, ...]:
    """The groups that may log in to `client`, in the order of GROUPS. Raises ValueError: none, or an unknown one."""
    unknown = [group for group in client.roles if group not in GROUPS]
    if unknown or not client.roles:
        raise ValueError(
            f"client {client.client_id}: roles are by group ({', '.join(GROUPS)}), not {unknown or 'none'}"
        )
    return tuple(group for group in GROUPS if group in client.roles)


def _order(groups: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(GROUPS.index(group) for group in groups)


def gate_of(groups: Iterable[str]) -> str:
    """Alias of the gate for `groups`."""
    return f"opstella login of {' and '.join(groups)}"


def _gate(groups: tuple[str, ...]) -> dict[str, Any]:
    # No dot: Keycloak would look for a client before it.
    return {"alias": gate_of(groups), "role": f"login_{'_'.join(groups)}", "groups": list(groups)}


def _roles_client() -> dict[str, Any]:
    off = (
        "publicClient", "standardFlowEnabled", "implicitFlowEnabled", "directAccessGrantsEnabled",
        "serviceAccountsEnabled", "fullScopeAllowed",
    )  # fmt: skip
    return {
        "clientId": ROLES_CLIENT,
        "name": "Groups of the platform: nobody logs in by this client",
        "protocol": "openid-connect",
        "enabled": True,
        **dict.fromkeys(off, False),
        "redirectUris": [],
        "webOrigins": [],
        "attributes": {},
    }


def _groups_scope() -> dict[str, Any]:
    """Claim `groups`: the roles of ROLES_CLIENT that the user has, which are named as the groups."""
    tokens = ("id.token", "access.token", "userinfo.token", "introspection.token")
    config = {
        "usermodel.clientRoleMapping.clientId": ROLES_CLIENT,
        "claim.name": "groups",
        "jsonType.label": "String",
        "multivalued": "true",
        **{f"{token}.claim": "true" for token in tokens},
    }
    return {
        "name": GROUPS_SCOPE,
        "description": "groups of the user",
        "protocol": "openid-connect",
        "attributes": {"include.in.token.scope": "true", "display.on.consent.screen": "false"},
        "protocolMappers": [_mapper("groups", "oidc-usermodel-client-role-mapper", config)],
    }


def _saml_groups_scope() -> dict[str, Any]:
    """Attribute `groups` of an assertion: one value a group."""
    config = {"attribute.name": "groups", "attribute.nameformat": "Basic", "single": "true"}
    return {
        "name": SAML_GROUPS_SCOPE,
        "description": "groups of the user",
        "protocol": "saml",
        "attributes": {"display.on.consent.screen": "false"},
        "protocolMappers": [_mapper("groups", "saml-role-list-mapper", config)],
    }


def _mapper(name: str, kind: str, config: dict[str, str]) -> dict[str, Any]:
    protocol = "saml" if kind.startswith("saml-") else "openid-connect"
    return {"name": name, "protocol": protocol, "protocolMapper": kind, "config": config}


def _client(client: OidcClient) -> dict[str, Any]:
    saml = client.protocol == "saml"
    attributes = _saml_attributes() if saml else _oidc_attributes(client)
    return {
        "gate": gate_of(admitted(client)),
        "secret": not (client.public or saml),
        "defaultClientScopes": [SAML_GROUPS_SCOPE] if saml else list(_SCOPES),
        "representation": {
            "clientId": client.client_id,
            "name": client.name,
            "protocol": client.protocol,
            "enabled": True,
            "publicClient": client.public,
            **({} if saml else {"clientAuthenticatorType": "client-secret"}),
            "standardFlowEnabled": True,
            "implicitFlowEnabled": False,
            "directAccessGrantsEnabled": False,
            "serviceAccountsEnabled": False,
            "consentRequired": False,
            "fullScopeAllowed": False,
            "frontchannelLogout": saml,
            "redirectUris": sorted(client.redirect_uris),
            "webOrigins": sorted(client.web_origins),
            "attributes": {**attributes, **client.attributes},
        },
        "protocolMappers": _saml_mappers() if saml else _audiences(client),
    }


def _oidc_attributes(client: OidcClient) -> dict[str, str]:
    attributes = {
        "oauth2.device.authorization.grant.enabled": "false",
        "oidc.ciba.grant.enabled": "false",
        "standard.token.exchange.enabled": "false",
        "backchannel.logout.session.required": "true",
        "post.logout.redirect.uris": "##".join(sorted(client.post_logout_redirect_uris)) or "+",
    }
    if client.pkce or client.public:
        attributes["pkce.code.challenge.method"] = "S256"
    return attributes


def _audiences(client: OidcClient) -> list[dict[str, Any]]:
    """The client's own id in its access tokens (ID tokens have it anyway), and further audiences in both."""
    own = _mapper(
        f"audience {client.client_id}",
        "oidc-audience-mapper",
        {
            "included.client.audience": client.client_id,
            "access.token.claim": "true",
            "id.token.claim": "false",
            "introspection.token.claim": "true",
        },
    )
    others = (
        _mapper(
            f"audience {audience}",
            "oidc-audience-mapper",
            {
                "included.client.audience": audience,
                "access.token.claim": "true",
                "id.token.claim": "true",
                "introspection.token.claim": "true",
            },
        )
        for audience in sorted(client.audiences)
    )
    return [own, *others]


def _saml_attributes() -> dict[str, str]:
    return {
        "saml.authnstatement": "true",
        "saml.assertion.signature": "true",
        "saml.server.signature": "true",
        "saml.client.signature": "false",
        "saml.force.post.binding": "true",
        "saml.signature.algorithm": "RSA_SHA256",
        "saml_name_id_format": "username",
    }


def _saml_mappers() -> list[dict[str, Any]]:
    """Attributes `login`, `name` and `email`; the scope SAML_GROUPS_SCOPE adds `groups`."""
    return [
        _mapper(
            name,
            "saml-user-attribute-mapper",
            {"attribute.name": name, "attribute.nameformat": "Basic", "user.attribute": attribute},
        )
        for name, attribute in (("email", "email"), ("login", "username"), ("name", "username"))
    ]
