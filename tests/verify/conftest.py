from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from plan.plan import as_data
from tests.support.platform import plan_of
from verify.stack import Stack

Make = Callable[..., Stack]


@pytest.fixture
def make() -> Make:
    """A stack as the engine would tell of it: `make(architecture, changes, public_address, firewall)`."""

    def stack(
        architecture: str = "standalone", changes: dict[str, Any] | None = None, public_address: str | None = None,
        firewall: bool = True,
    ) -> Stack:
        # The literal tables, of which more rows are open than anything needs: more to ask about.
        network = {"strict": False, **(changes or {}).get("network", {})}
        plan = plan_of(architecture, {**(changes or {}), "network": network})
        data = as_data(plan)
        keys = {host["name"]: f"ssh-ed25519 key-of-{host['name']}" for host in data["hosts"]}
        return Stack(
            name=architecture, plan=data, releases=plan.releases, outputs={"host_keys": keys}, private_key="the private key\n",
            public_address=public_address, firewall=firewall,
        )  # fmt: skip

    return stack
