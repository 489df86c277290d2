"""`PkiChain`: the platform's certificate authority, and the server certificates signed here.

Root and intermediate are generated, or the user brings an intermediate that an offline root signed. The root's key
is needed only to sign the intermediate; both keys live in the stack's encrypted state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_tls as tls

from config.model import Intermediate
from plan.pki import RSA_BITS, Authority, CaTree, Leaf

_CA_USES = ["cert_signing", "crl_signing", "digital_signature"]
_SERVER_USES = ["digital_signature", "key_encipherment", "server_auth"]


@dataclass(frozen=True, kw_only=True)
class PkiChainArgs:
    """The tree to make; `intermediate` is the user's own, if the tree has none. `extra` are PEM certificates that
    are trusted besides."""

    tree: CaTree
    intermediate: Intermediate | None = None
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ServerCertificate:
    """`chain` is PEM, leaf first, up to but without the root; `private_key` is a secret."""

    chain: pulumi.Output[str]
    private_key: pulumi.Output[str]


class PkiChain(pulumi.ComponentResource):
    """Outputs: `root`, `intermediate` (certificates), `intermediate_key` (secret), `authority_chain` (the intermediate
    and what stands above it, up to and with the root), `ca_bundle` (all that is trusted); all PEM. `leaves` maps a
    leaf's name to its `ServerCertificate`."""

    root: pulumi.Output[str]
    intermediate: pulumi.Output[str]
    intermediate_key: pulumi.Output[str]
    authority_chain: pulumi.Output[str]
    ca_bundle: pulumi.Output[str]
    leaves: Mapping[str, ServerCertificate]

    def __init__(self, name: str, args: PkiChainArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("opstella:pki:PkiChain", name, None, opts)
        self._name = name
        tree, given = args.tree, args.intermediate
        if tree.root is not None and tree.intermediate is not None:
            self._generate(tree.root, tree.intermediate)
        elif given is not None:
            self.root = pulumi.Output.from_input(_last(given.chain))
            self.intermediate = pulumi.Output.from_input(given.certificate)
            self.intermediate_key = pulumi.Output.secret(given.private_key.get_secret_value())
        else:
            raise ValueError("a CA tree without authorities needs the user's intermediate")
        # Everything between the user's intermediate and its root goes along with a leaf; the root does not.
        between = given.chain.removesuffix(_last(given.chain)) if given is not None else ""
        chain = pulumi.Output.concat(self.intermediate, between)
        self.authority_chain = pulumi.Output.concat(chain, self.root)
        self.leaves = {leaf.name: self._leaf(leaf, chain) for leaf in tree.leaves}
        self.ca_bundle = self.root.apply(lambda own: "".join([own, *args.extra]))
        self.register_outputs(
            {
                "root": self.root,
                "intermediate": self.intermediate,
                "intermediate_key": self.intermediate_key,
                "authority_chain": self.authority_chain,
                "ca_bundle": self.ca_bundle,
            }
        )

    def _generate(self, root: Authority, intermediate: Authority) -> None:
        root_key = self._key("root")
        root_certificate = tls.SelfSignedCert(
            f"{self._name}-root",
            private_key_pem=root_key.private_key_pem,
            subject=tls.SelfSignedCertSubjectArgs(common_name=root.common_name, organization=root.organization),
            is_ca_certificate=True,
            set_subject_key_id=True,
            allowed_uses=_CA_USES,
            max_path_length=root.path_length,
            validity_period_hours=root.hours,
            opts=pulumi.ResourceOptions(parent=self),
        )
        key = self._key("intermediate")
        request = tls.CertRequest(
            f"{self._name}-intermediate-request",
            private_key_pem=key.private_key_pem,
            subject=tls.CertRequestSubjectArgs(
                common_name=intermediate.common_name, organization=intermediate.organization
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        certificate = tls.LocallySignedCert(
            f"{self._name}-intermediate",
            cert_request_pem=request.cert_request_pem,
            ca_cert_pem=root_certificate.cert_pem,
            ca_private_key_pem=root_key.private_key_pem,
            is_ca_certificate=True,
            set_subject_key_id=True,
            allowed_uses=_CA_USES,
            validity_period_hours=intermediate.hours,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.root = root_certificate.cert_pem
        self.intermediate = certificate.cert_pem
        self.intermediate_key = key.private_key_pem

    def _leaf(self, leaf: Leaf, chain: pulumi.Output[str]) -> ServerCertificate:
        # 3072 bits outlast a leaf by far and halve the cost of each handshake.
        key = tls.PrivateKey(
            f"{self._name}-{leaf.name}-key", algorithm="RSA", rsa_bits=3072, opts=pulumi.ResourceOptions(parent=self)
        )
        request = tls.CertRequest(
            f"{self._name}-{leaf.name}-request",
            private_key_pem=key.private_key_pem,
            subject=tls.CertRequestSubjectArgs(common_name=leaf.dns_names[0]),
            dns_names=list(leaf.dns_names),
            ip_addresses=list(leaf.ip_addresses),
            opts=pulumi.ResourceOptions(parent=self),
        )
        certificate = tls.LocallySignedCert(
            f"{self._name}-{leaf.name}",
            cert_request_pem=request.cert_request_pem,
            ca_cert_pem=self.intermediate,
            ca_private_key_pem=self.intermediate_key,
            set_subject_key_id=True,
            allowed_uses=_SERVER_USES,
            validity_period_hours=leaf.hours,
            early_renewal_hours=leaf.renew_hours,
            opts=pulumi.ResourceOptions(parent=self),
        )
        full = pulumi.Output.concat(certificate.cert_pem, chain)
        return ServerCertificate(chain=full, private_key=key.private_key_pem)

    def _key(self, role: str) -> tls.PrivateKey:
        return tls.PrivateKey(
            f"{self._name}-{role}-key",
            algorithm="RSA",
            rsa_bits=RSA_BITS,
            opts=pulumi.ResourceOptions(parent=self),
        )


def _last(pem: str) -> str:
    """The last certificate of a PEM chain."""
    begin = "-----BEGIN CERTIFICATE-----"
    return begin + pem.rpartition(begin)[2]
