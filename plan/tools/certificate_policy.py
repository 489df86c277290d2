"""Who may have which name signed: the rule for the ClusterIssuers, which sign for every namespace.

Their authority is one that people import into their browsers. pulumi-tls writes no name constraints into it, so the API
server holds the requests to the names: outside of the namespaces of the program's own tools, a certificate is for Services
of its namespace, or for a name under the platform's domain that is none of the platform's own.
"""

from __future__ import annotations

from plan.tools.common import OWNER, OWNER_LABEL
from plan.tools.model import Manifest, ToolInputs, Values

NAME = "opstella-certificates"
EXEMPT_LABEL, EXEMPT = "opstella.io/certificates", "any"
"""Of a namespace that an administrator lets have any name."""
CONTROLLER = "system:serviceaccount:cert-manager:cert-manager"
API = "admissionregistration.k8s.io/v1"


def manifests(inputs: ToolInputs) -> tuple[Manifest, ...]:
    """The policy and its binding."""
    names = ", ".join(f"'{host}'" for host in sorted(set(inputs.all_hosts.values())))
    allowed = (
        "(n.endsWith('.' + request.namespace + '.svc') || n.endsWith('.' + request.namespace + '.svc.cluster.local') || "
        f"(n.endsWith('.{inputs.domain}') && !n.contains('*') && !(n in [{names}])))"
    )
    unnamed = ("ipAddresses", "uris", "emailAddresses", "otherNames")
    rules = [
        ("certificates", f"has(object.spec.dnsNames) && object.spec.dnsNames.all(n, {allowed})",
         "a certificate of a ClusterIssuer is for Services of its own namespace, or for names under "
         f"{inputs.domain} that are not the platform's, without '*'"),
        ("certificates", "!has(object.spec.commonName) || object.spec.commonName == '' || "
         "(has(object.spec.dnsNames) && object.spec.commonName in object.spec.dnsNames)",
         "the common name of a certificate is one of its dnsNames"),
        ("certificates", " && ".join(f"(!has(object.spec.{f}) || object.spec.{f}.size() == 0)" for f in unnamed),
         f"a certificate of a ClusterIssuer has none of {', '.join(unnamed)}"),
        ("certificates", "(!has(object.spec.isCA) || !object.spec.isCA) && !has(object.spec.literalSubject)",
         "a ClusterIssuer signs no authority, and no literalSubject"),
        # What is in a request is encoded, so that nobody could look: cert-manager makes it from a Certificate.
        ("certificaterequests", f"request.userInfo.username == '{CONTROLLER}'",
         "ask a ClusterIssuer by a Certificate: a CertificateRequest is cert-manager's own"),
    ]  # fmt: skip
    body: Values = {
        "apiVersion": API,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": NAME},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": ["cert-manager.io"],
                        "apiVersions": ["*"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["certificates", "certificaterequests"],
                    }
                ]
            },
            "matchConditions": [
                {
                    "name": "cluster-issuer",
                    "expression": "has(object.spec.issuerRef.kind) && object.spec.issuerRef.kind == 'ClusterIssuer'",
                }
            ],
            "validations": [
                {"expression": f"request.resource.resource != '{resource}' || ({expression})", "message": message}
                for resource, expression, message in rules
            ],
        },
    }
    others = [
        {"key": OWNER_LABEL, "operator": "NotIn", "values": [OWNER]},
        {"key": EXEMPT_LABEL, "operator": "NotIn", "values": [EXEMPT]},
    ]
    binding: Values = {
        "apiVersion": API,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": NAME},
        "spec": {
            "policyName": NAME,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchExpressions": others}},
        },
    }
    return (
        Manifest(name=NAME, needs=(), body=body),
        Manifest(name=f"{NAME}-binding", needs=(), body=binding),
    )
