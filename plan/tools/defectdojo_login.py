"""Whom DefectDojo takes somebody for who comes from Keycloak: its local_settings.py, which the chart mounts.

DefectDojo's own way of joining a login to an account that is there already is the e-mail address, and no variable
switches that off (dojo/sso/settings.py at 2.58.4: the step `associate_by_email` of SOCIAL_AUTH_PIPELINE). The step is
replaced by one that joins the first login only to an account that the stack's settings name, by its user name: only
administrators of the realm change that name, and only administrators of the stack the list. From then on the login
is known by its `sub`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from plan.tools.model import Values

BY_EMAIL = "social_core.pipeline.social_auth.associate_by_email"
# dojo/settings/settings.py executes local_settings.py as a part of itself, so that its functions are found there.
BY_NAME = "dojo.settings.settings.join_account_of_the_settings"

_TEXT = """\
# Made by the Opstella stack: nobody is joined to an account by an e-mail address.
OPSTELLA_ACCOUNTS = {accounts}
SOCIAL_AUTH_PIPELINE = tuple(
    "{by_name}" if step == "{by_email}" else step
    for step in SOCIAL_AUTH_PIPELINE
)
if "{by_email}" in SOCIAL_AUTH_PIPELINE or "{by_name}" not in SOCIAL_AUTH_PIPELINE:
    raise RuntimeError("SOCIAL_AUTH_PIPELINE is not that of DefectDojo 2.58: logins would be joined by e-mail address")
# DefectDojo has no variable for it; its library (social-auth-core 4.8.7) sends PKCE in OpenID Connect only when told to.
SOCIAL_AUTH_OIDC_USE_PKCE = True


def join_account_of_the_settings(backend, details, user=None, *args, **kwargs):
    name = details.get("username")
    if user or name not in OPSTELLA_ACCOUNTS:
        return None
    found = backend.strategy.storage.user.user_model().objects.filter(username=name).first()
    # An account that was joined once stays that login's.
    if found is None or found.social_auth.filter(provider=backend.name).exists():
        return None
    return {{"user": found, "is_new": False}}
"""


def local_settings(accounts: Iterable[str]) -> str:
    """The text of local_settings.py; `accounts` are the user names whose first login is joined to the account."""
    return _TEXT.format(accounts=repr(sorted(accounts)), by_name=BY_NAME, by_email=BY_EMAIL)


def values(accounts: Iterable[str]) -> Values:
    """The chart's values for it; the annotation restarts pods, which read the file once, when it changes."""
    text = local_settings(accounts)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {"localsettingspy": text, "extraAnnotations": {"opstella.io/login": digest}}
