"""GitLab Omnibus: the text of gitlab.rb.

Certificate and key lie at Omnibus' default paths (/etc/gitlab/ssl/<host>.crt and .key), so no key names them.
"""

from __future__ import annotations

from collections.abc import Mapping

HTTP, HTTPS, SSH, PROMETHEUS = 80, 443, 22, 9090  # the reference's firewall table

Ruby = str | int | bool | list[str]


def gitlab_rb(host: str, version: str) -> str:
    """gitlab.rb for the service name `host` and an Omnibus `version` such as 19.3.1."""
    # Omnibus 19.2 moved the bundled nginx' settings below gitlab_rails; the old keys are deprecated there.
    major, minor = map(int, version.split(".")[:2])
    nginx = "gitlab_rails['nginx']" if (major, minor) >= (19, 2) else "nginx"
    return render(
        {
            "external_url": f"https://{host}",
            "letsencrypt['enable']": False,
            f"{nginx}['redirect_http_to_https']": True,
            "gitlab_rails['gitlab_shell_ssh_port']": SSH,
            "gitlab_rails['time_zone']": "UTC",
            # The password comes by the environment at the first install and is kept by the stack, not by the host.
            "gitlab_rails['store_initial_root_password']": False,
            "gitlab_rails['display_initial_root_password']": False,
            "prometheus['listen_address']": f"0.0.0.0:{PROMETHEUS}",
        }
    )


def render(settings: Mapping[str, Ruby]) -> str:
    """Assignments of Ruby literals; external_url is a method call, as Omnibus has it."""
    return "".join(
        f"{name} {_literal(value)}\n" if name == "external_url" else f"{name} = {_literal(value)}\n"
        for name, value in settings.items()
    )


def _literal(value: Ruby) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    # Single quotes interpolate nothing; only the quote and the backslash need an escape.
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
