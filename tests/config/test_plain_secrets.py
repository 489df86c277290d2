"""What counts as a secret in plain configuration: keys of the real charts, and what only looks alike."""

from __future__ import annotations

from typing import Any

import pytest

from config.plain_secrets import plain_secrets

PLAIN = "s3cr3t-0f8e1c"


def nested(path: str, value: Any) -> dict[str, Any]:
    for part in reversed(path.split(".")):
        value = {part: value}
    return value  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "path",
    [
        "configs.secret.argocdServerAdminPassword", "configs.secret.githubSecret", "imageRenderer.token", "core.secret",
        "database.external.password", "harborAdminPassword", "secretKey", "config.oidc.clientSecret", "config.cookieSecret",
        "persistence.imageChartStorage.s3.accesskey", "loki.storage.s3.secretAccessKey", "minio.rootPassword",
        "loki.loki.storage.object_store.s3.secret_access_key", "auth.bearerToken", "hub.providers.apiKey", "DB_PASSWORD",
        "tls.privateKey", "encryption_key", "credentials", "smtp-passwd", "api-key", "signing.passphrase", "APIToken",
        "DB_PWD", "SMTP_PASS", "PASSWORD_1", "env.passwordOfTheDatabase", "envPassword", "imageToken", "TOKEN2", "dbSecretValue",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [PLAIN, "$2a$10$abc", "/aBcD+/=", "1234567"])
def test_a_secret_of_a_chart(path: str, value: str) -> None:
    assert list(plain_secrets(nested(path, value))) == [f".{path}"]


@pytest.mark.parametrize(
    "path",
    [
        "existingSecret", "existingSecretPasswordKey", "imagePullSecret", "tlsSecret", "trustedCertsSecret", "extraSecret",
        "envFromSecret", "registry.middleware.cloudFront.privateKeySecret", "auth.passwordSecretKey", "secretName",
        "passwordKey", "tokenUrl", "tokenTtl", "passwordPolicy", "secretRef", "accessKeyId", "adminPasswordFile",
    ],
)  # fmt: skip
def test_a_name_is_no_secret(path: str) -> None:
    assert list(plain_secrets(nested(path, PLAIN))) == []


@pytest.mark.parametrize(
    "value",
    [
        "glpat-ABCDEFGHIJKLMNOPqrst", "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "AKIAIOSFODNN7EXAMPLE",
        "x hvs.CAESIJabcdefghijklmnopqrstu y", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlMTIz",
        "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
    ],
)  # fmt: skip
def test_a_known_form_is_a_secret_whatever_its_name(value: str) -> None:
    assert list(plain_secrets({"config": {"text": [value]}})) == [".config.text[0]"]


@pytest.mark.parametrize("value", ["$ecret", "/a/../b c", "Tls.Key!", "{{ x }} and more", "$(X)y"])
def test_what_only_begins_like_a_reference_is_a_secret(value: str) -> None:
    assert list(plain_secrets({"password": value})) == [".password"]


@pytest.mark.parametrize("key", ["tlsSecret", "imagePullSecret", "existingSecret"])
def test_a_name_of_a_secret_has_the_form_of_a_name(key: str) -> None:
    assert list(plain_secrets({key: "grafana-tls"})) == []
    assert list(plain_secrets({key: "S3cr3t!"})) == [f".{key}"]


@pytest.mark.parametrize(
    "value",
    ["", "  ", None, True, False, {}, [], "${VAULT_TOKEN}", "$(TOKEN)", "$__file{/etc/x}", "$TOKEN", "{{ .Values.x }}",
     "%(ENV)s", "<path:secret/data/x#y>", "/etc/secrets/token", "tls.key"],
)  # fmt: skip
def test_what_holds_no_secret(value: Any) -> None:
    assert list(plain_secrets({"auth": {"password": value, "token": value}})) == []


def test_a_number_is_a_password_and_no_token() -> None:
    assert list(plain_secrets({"password": 123456, "token": 600})) == [".password"]


def test_a_key_beside_the_name_of_its_secret_names_a_key() -> None:
    assert list(plain_secrets({"license": {"secretName": "vault", "secretKey": "license"}})) == []
    assert list(plain_secrets({"monitoringPasscodeSecretName": "x", "monitoringPasscodeSecretKey": "passcode"})) == []
    assert list(plain_secrets({"license": {"secretName": "", "secretKey": PLAIN}})) == [".license.secretKey"]
    assert list(plain_secrets({"admin": {"existingSecret": "a", "password": PLAIN}})) == [".admin.password"]


def test_variables_in_a_list() -> None:
    variables = [
        {"name": "LEVEL", "value": "info"},
        {"name": "DB_PASSWORD", "value": PLAIN},
        {"name": "TOKEN", "value": "$(X)"},
    ]
    assert list(plain_secrets({"env": variables})) == [".env[1].value"]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (f"postgres://user:{PLAIN}@host/db", True),
        ("postgres://user:$(PASSWORD)@host/db", False),
        ("https://host:8443/path@x", False),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc", True),
        ("-----BEGIN CERTIFICATE-----\nabc", False),
        (f"a text\nwith redis://:{PLAIN}@host:6379 in it", True),
    ],
)
def test_texts(value: str, found: bool) -> None:
    assert list(plain_secrets({"config": {"text": [value]}})) == ([".config.text[0]"] if found else [])
