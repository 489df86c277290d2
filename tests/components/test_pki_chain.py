"""PkiChain: the authorities, the leaves, and which certificates go along with which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.pki_chain import PkiChain, PkiChainArgs
from config.model import Intermediate
from plan.pki import HOURS_PER_YEAR
from tests.config import material
from tests.support.platform import plan_of
from tests.support.stack import CERTIFICATE, UNKNOWN, Recording, Secret, run

ROOT, MIDDLE, LEAF = (CERTIFICATE.format(name=name) for name in ("pki-root", "pki-intermediate", "pki-gitlab"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    names = material.make(tmp_path_factory.mktemp("pki"))
    return {name: Path(path).read_text() for name, path in names.items() if path.endswith(".pem")}


def generated(preview: bool = False, changes: dict[str, Any] | None = None, **arguments: Any) -> Recording:
    plan = plan_of(changes=changes)

    def stack() -> None:
        pki = PkiChain("pki", PkiChainArgs(tree=plan.ca, **arguments))
        for name, leaf in pki.leaves.items():
            pulumi.export(name, {"chain": leaf.chain, "key": leaf.private_key})

    return run(stack, preview=preview)


def users(files: dict[str, str], preview: bool = False, *, lower: bool = False) -> Recording:
    """With the user's intermediate: directly below the root, or with another one in between."""
    given = {
        "certificate": files["lower"] if lower else files["intermediate"],
        "privateKey": files["lower_key"] if lower else files["intermediate_key"],
        "chain": files["chain"] if lower else files["root"],
    }
    plan = plan_of(changes={"pki": {"intermediate": given}})
    return generated(preview, {"pki": {"intermediate": given}}, intermediate=plan.settings.pki.intermediate)


def test_names_and_types(preview: bool) -> None:
    found = generated(preview)
    assert found.named("pki").type == "opstella:pki:PkiChain"
    assert {c.name: c.type.split(":")[2] for c in found.children(found.named("pki"))} == {
        "pki-root-key": "PrivateKey",
        "pki-root": "SelfSignedCert",
        "pki-intermediate-key": "PrivateKey",
        "pki-intermediate-request": "CertRequest",
        "pki-intermediate": "LocallySignedCert",
        "pki-gitlab-key": "PrivateKey",
        "pki-gitlab-request": "CertRequest",
        "pki-gitlab": "LocallySignedCert",
    }


def test_the_authorities_are_the_references(preview: bool) -> None:
    found = generated(preview)
    for name in ("pki-root-key", "pki-intermediate-key"):
        key = found.named(name).inputs
        assert (key["algorithm"], key["rsaBits"]) == ("RSA", 4096)
    root, middle = found.named("pki-root").inputs, found.named("pki-intermediate").inputs
    assert root["validityPeriodHours"] == 15 * HOURS_PER_YEAR
    assert middle["validityPeriodHours"] == 10 * HOURS_PER_YEAR
    for authority in (root, middle):
        assert authority["isCaCertificate"] is True and authority["setSubjectKeyId"] is True
        assert "cert_signing" in authority["allowedUses"] and "server_auth" not in authority["allowedUses"]
    assert root["maxPathLength"] == 1


def test_each_certificate_is_signed_by_the_one_above() -> None:
    found = generated()
    middle, leaf = found.named("pki-intermediate"), found.named("pki-gitlab")

    def key(name: str) -> Secret:
        made = found.named(name).outputs["privateKeyPem"]
        assert isinstance(made, Secret)
        return made

    assert (middle.marked["caCertPem"], middle.marked["caPrivateKeyPem"]) == (ROOT, key("pki-root-key"))
    assert (leaf.marked["caCertPem"], leaf.marked["caPrivateKeyPem"]) == (MIDDLE, key("pki-intermediate-key"))
    assert found.named("pki-root").marked["privateKeyPem"] == key("pki-root-key")
    assert found.named("pki-gitlab-request").marked["privateKeyPem"] == key("pki-gitlab-key")


def test_a_leaf_serves_its_names_and_signs_nothing(preview: bool) -> None:
    found = generated(preview, {"pki": {"leafDays": 90}})
    request, leaf = found.named("pki-gitlab-request").inputs, found.named("pki-gitlab").inputs
    assert request["dnsNames"] == ["gitlab.devops.example.com"]
    assert request["ipAddresses"] == ["192.168.72.14"]
    assert "isCaCertificate" not in leaf and "cert_signing" not in leaf["allowedUses"]
    assert "server_auth" in leaf["allowedUses"]
    assert leaf["validityPeriodHours"] == 90 * 24
    assert 0 < leaf["earlyRenewalHours"] < 90 * 24


def test_outputs(preview: bool) -> None:
    found = generated(preview)
    declared = found.outputs_of("pki")
    expected = {"root": ROOT, "intermediate": MIDDLE, "authority_chain": MIDDLE + ROOT, "ca_bundle": ROOT}
    key = declared.pop("intermediate_key")
    if preview:
        assert declared == dict.fromkeys(expected, UNKNOWN) and key is UNKNOWN
    else:
        assert declared == expected
        assert key == found.named("pki-intermediate-key").outputs["privateKeyPem"]
        assert found.exports["gitlab"] == {
            "chain": LEAF + MIDDLE,  # the root is the reader's own to know
            "key": found.named("pki-gitlab-key").outputs["privateKeyPem"],
        }


def test_what_is_trusted_besides_stands_in_the_bundle_only() -> None:
    extra = CERTIFICATE.format(name="company")
    declared = generated(extra=(extra,)).outputs_of("pki")
    assert declared["ca_bundle"] == ROOT + extra
    assert declared["authority_chain"] == MIDDLE + ROOT


def test_the_users_intermediate_signs(files: dict[str, str], preview: bool) -> None:
    found = users(files, preview)
    assert {c.name for c in found.children(found.named("pki"))} == {"pki-gitlab", "pki-gitlab-key", "pki-gitlab-request"}
    declared = found.outputs_of("pki")
    assert declared["root"] == declared["ca_bundle"] == files["root"]
    assert declared["intermediate"] == files["intermediate"]
    assert declared["authority_chain"] == files["intermediate"] + files["root"]
    assert declared["intermediate_key"] == Secret(files["intermediate_key"])
    leaf = found.named("pki-gitlab")
    assert leaf.marked["caCertPem"] == files["intermediate"]
    assert leaf.marked["caPrivateKeyPem"] == Secret(files["intermediate_key"])
    if not preview:
        assert found.exports["gitlab"]["chain"] == LEAF + files["intermediate"]


def test_what_stands_between_the_users_intermediate_and_its_root_goes_along(files: dict[str, str]) -> None:
    found = users(files, lower=True)
    declared = found.outputs_of("pki")
    assert declared["authority_chain"] == files["lower"] + files["intermediate"] + files["root"]
    assert declared["ca_bundle"] == declared["root"] == files["root"]
    assert found.exports["gitlab"]["chain"] == LEAF + files["lower"] + files["intermediate"]


def test_a_tree_without_authorities_needs_the_users(files: dict[str, str]) -> None:
    given = Intermediate.model_validate(
        {"certificate": files["intermediate"], "privateKey": files["intermediate_key"], "chain": files["root"]},
        by_alias=True, by_name=False,
    )  # fmt: skip
    tree = plan_of(changes={"pki": {"intermediate": given.model_dump(by_alias=True) | {"privateKey": files["intermediate_key"]}}}).ca  # fmt: skip
    assert tree.root is None
    with pytest.raises(ValueError, match="needs the user's intermediate"):
        run(lambda: PkiChain("pki", PkiChainArgs(tree=tree)) and None)
