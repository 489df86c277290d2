"""The realm of all tools, as the data that provision/keycloak.py applies: settings, groups, gates, clients, users.

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
GROUPS_SCOPE = "groups"
MARK = "opstella.stack"
"""Attribute of a realm, and of a client, that says whose it is; its value is the stack's domain."""

# Of every client, by their names in a new realm of Keycloak 26.
_SCOPES = ("acr", "basic", "email", "profile", "roles", "web-origins", GROUPS_SCOPE)
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
    "eventsEnabled": True,
    "eventsListeners": ["jboss-logging"],
    "eventsExpiration": 30 * _DAY,
    "adminEventsEnabled": True,
    "adminEventsDetailsEnabled": False,  # details would repeat what people typed
}


def realm(clients: Sequence[OidcClient], inputs: ToolInputs) -> dict[str, Any]:
    """The whole realm; the same clients give the same data, in whatever order they come."""
    identity = inputs.identity
    ordered = sorted(clients, key=lambda client: client.client_id)
    return {
        "realm": identity.realm,
        "mark": {"name": MARK, "value": inputs.domain},
        "adopt": identity.adopt,
        "settings": {"displayName": f"Opstella {inputs.domain}", **SETTINGS},
        "groups": list(GROUPS),
        "scopes": [_groups_scope()],
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


def _groups_scope() -> dict[str, Any]:
    """Claim `groups`: the names of the user's groups, without the leading slash of a path."""
    everywhere = {f"{token}.claim": "true" for token in ("id.token", "access.token", "userinfo.token", "introspection.token")}  # fmt: skip
    return {
        "name": GROUPS_SCOPE,
        "description": "groups of the user",
        "protocol": "openid-connect",
        "attributes": {"include.in.token.scope": "true", "display.on.consent.screen": "false"},
        "protocolMappers": [
            _mapper(
                "groups", "oidc-group-membership-mapper", {"claim.name": "groups", "full.path": "false", **everywhere}
            )
        ],
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
        "defaultClientScopes": [] if saml else list(_SCOPES),
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
    """Attributes `login`, `name`, `email` and, one value a group, `groups`."""
    return [
        _mapper(
            "groups",
            "saml-group-membership-mapper",
            {"attribute.name": "groups", "attribute.nameformat": "Basic", "single": "true", "full.path": "false"},
        ),
        *(
            _mapper(
                name,
                "saml-user-attribute-mapper",
                {"attribute.name": name, "attribute.nameformat": "Basic", "user.attribute": attribute},
            )
            for name, attribute in (("email", "email"), ("login", "username"), ("name", "username"))
        ),
    ]
