"""The transcription of the documents' tables, row by row against the documents; and its own consistency without them."""

from __future__ import annotations

import re
from collections import Counter
from typing import get_args

import pytest

from plan import gitlab, haproxy, nfs
from plan.contract import findings, roles
from plan.contract.entry import DOCUMENTS, UNSTATED, Entry, entries, inbound, parse
from plan.contract.rule import Source, Target
from tests.plan.reference_tables import FOLDER, rows

# Rows of each table, counted in the documents.
COUNTS = {
    "opstella_standalone": (8, 1, 6, 3, 3, 1),
    "opstella_multicluster": (7, 1, 6, 3, 3, 1),
    "tectonic": (7, 4, 1, 1, 7, 1),
    "deckhouse": (4, 4, 5, 24, 2, 5, 4),
    "rke2_cilium": (13,),
}
STRENGTHS = {"must": 10, "should": 4, "may": 7}  # of Tectonic's rows; everywhere else all are musts
# What the transcription calls machines of headings and items that are sentences.
NAMES = {
    "": UNSTATED, "Master": "masters", "master nodes": "masters", "Nodes": "nodes", "all nodes": "nodes",
    "External traffic": "outside", "External": "outside", "download gcr, quay, and docker hub": "gcr, quay, docker hub",
}  # fmt: skip

with_documents = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the documents are not there: {FOLDER}")
documents = pytest.mark.parametrize("document", DOCUMENTS)


@documents
def test_every_table_has_its_rows(document: str) -> None:
    found = entries(document)
    assert tuple(Counter(e.table for e in found).values()) == COUNTS[document]
    for table in {e.table for e in found}:
        numbers = [e.row for e in found if e.table == table]
        assert numbers == list(range(1, len(numbers) + 1))


def test_strengths_are_the_documents() -> None:
    assert Counter(e.strength for e in entries("tectonic")) == STRENGTHS
    assert {e.strength for d in DOCUMENTS if d != "tectonic" for e in entries(d)} == {"must"}


@with_documents
@documents
def test_the_transcription_is_the_document(document: str) -> None:
    """In number, and in each row's table, place, strength, direction, protocols, ports, source and target."""
    read, written = rows(document), entries(document)
    assert len(read) == len(written) == sum(COUNTS[document])
    for row, entry in zip(read, written, strict=True):
        assert (entry.table, entry.row, entry.strength, entry.direction) == (
            row.table, row.row, row.strength, row.direction,
        ), row  # fmt: skip
        assert set(entry.protocols) == row.protocols, row
        assert set(entry.intervals) == row.ports, row
        assert (entry.source, entry.to) == (NAMES.get(row.source, row.source), NAMES.get(row.to, row.to)), row
        words = re.findall(r"[a-z]{3,}", entry.purpose.lower())
        assert any(word in row.text.lower() for word in words), f"{entry.purpose}: {row.text}"


@with_documents
def test_conditions_stand_in_the_document() -> None:
    read = {(r.table, r.row): r.text for r in rows("tectonic")}
    conditional = {place for place, text in read.items() if re.search(r"\b(if|when)\b", text)}
    assert conditional == {(e.table, e.row) for e in entries("tectonic") if e.when}
    assert {(e.table, e.row) for e in entries("tectonic") if e.as_for} == {("Worker Nodes, Ingress", 1)}
    assert "all ports open to master nodes" in read["Worker Nodes, Ingress", 1]


# Roles


def test_every_role_of_a_row_is_mapped_and_no_other() -> None:
    used: dict[str, set[str]] = {}
    for document in DOCUMENTS:
        family = "opstella" if document.startswith("opstella") else document
        for entry in entries(document):
            used.setdefault(family, set()).update({entry.source, entry.to} | ({entry.as_for} if entry.as_for else set()))
    assert {family: set(names) for family, names in roles.mapping().items()} == used


def test_what_comes_in_is_mapped_to_our_machines() -> None:
    for document in DOCUMENTS:
        for entry in inbound(document):
            targets, sources = roles.ours(document, entry.to), roles.ours(document, entry.source)
            assert targets and set(targets) <= set(get_args(Target)), entry
            assert sources and set(sources) <= set(get_args(Source)), entry


def test_an_unknown_role_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"deckhouse: 'etcd nodes' is mapped to none of our machines; map it in roles.toml"):
        roles.ours("deckhouse", "etcd nodes")


# Findings


def test_every_finding_is_about_rows_that_are_there() -> None:
    every = [f for d in DOCUMENTS for f in findings.findings(d)]
    assert len(every) == len(findings._all())
    for finding in every:
        assert all(any(finding.holds_for(e) for e in entries(finding.document) if e.row == row) for row in finding.rows)
        assert finding.what and finding.proposal
        assert set(finding.protocols) <= {"tcp", "udp", "icmp"} and (finding.always or not finding.protocols)
    for document in DOCUMENTS:
        for entry in entries(document):
            assert sum(f.holds_for(entry) for f in every) <= 1, entry


def test_a_finding_about_no_row_is_an_error() -> None:
    written = {"document": "deckhouse", "table": "External traffic to masters", "rows": [2, 3], "what": "", "proposal": ""}
    with pytest.raises(ValueError, match=r"deckhouse, External traffic to masters, .*: the document has no row \[3\]"):
        findings._finding(written)
    with pytest.raises(ValueError, match=r"there is no key \['form'\]"):
        findings._finding({**written, "form": []})


@pytest.mark.parametrize("document", ["opstella_standalone", "opstella_multicluster"])
def test_a_port_that_is_open_to_anyone_is_meant_to_be_or_found(document: str) -> None:
    """What users come in by: GitLab's web and Git, and the load balancer's."""
    found = findings.findings(document)
    meant = [e for e in inbound(document) if roles.ours(document, e.source) == ("any",) and not any(f.holds_for(e) for f in found)]
    assert {(e.to, e.ports) for e in meant} == {("GitLab", (80, 443)), ("GitLab", (22,)), ("HAProxy", (80, 443))}


# The reading of a file


def file(row: str) -> str:
    return f'title = "T"\nstrength = "must"\ndirection = "in"\n[[table]]\nname = "A"\nfrom = "a"\nto = "b"\nrows = [{{ {row} }}]\n'


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('row = 1, ports = [0], purpose = "p"', "A, row 1: 0 is no port; write 1 to 65535"),
        ('row = 1, ports = [70000], purpose = "p"', "70000 is no port"),
        ('row = 1, ports = ["2380-2379"], purpose = "p"', "the range 2380-2379 is reversed or empty"),
        ('row = 1, ports = ["1-2-3"], purpose = "p"', "the range 1-2-3 is reversed or empty"),
        ('row = 1, protocols = ["tpc"], ports = [1], purpose = "p"', "'tpc' is no protocol; write one of tcp, udp, icmp"),
        ('row = 1, strength = "shall", ports = [1], purpose = "p"', "'shall' is no strength; write one of must, should, may"),
        ('row = 1, direction = "up", ports = [1], purpose = "p"', "'up' is no direction"),
        ('row = 1, purpose = "p"', "it has no ports"),
        ('row = 1, port = [1], purpose = "p"', r"there is no key \['port'\]"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused(row: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^x.toml: .*{message}"):
        parse("x", file(row))


def test_a_row_is_read_with_what_its_table_says() -> None:
    (entry,) = parse("x", file('row = 1, protocols = ["udp"], ports = [53, "1024-65535"], purpose = "p", to = "c"'))
    assert entry == Entry(
        document="x", title="T", table="A", row=1, strength="must", direction="in", source="a", to="c",
        protocols=("udp",), ports=(53,), ranges=((1024, 65535),), purpose="p",
    )  # fmt: skip
    assert entry.intervals == ((53, 53), (1024, 65535)) and entry.name == "T: A, row 1"


def test_a_row_that_points_at_other_machines_has_their_rows() -> None:
    copies = [e for e in inbound("tectonic") if (e.to, e.row) == ("Worker Nodes", 1)]
    masters = [e for e in inbound("tectonic") if e.to == "Master Nodes"]
    assert [(e.ports, e.ranges, e.source, e.strength) for e in copies] == [
        (e.ports, e.ranges, e.source, e.strength) for e in masters
    ]
    assert {e.table for e in copies} == {"Worker Nodes, Ingress"} and len(copies) == 7


def test_the_machines_serve_what_the_tables_open() -> None:
    """The ports in the configurations of HAProxy, GitLab and NFS are the reference's."""
    for document in ("opstella_standalone", "opstella_multicluster"):
        ports = {to: {p for e in entries(document) if e.to == to for p in e.ports} for to in (e.to for e in entries(document))}
        assert ports["Kubernetes Worker Nodes"] == {haproxy.INGRESS_HTTP, haproxy.INGRESS_HTTPS}
        assert ports["GitLab"] == {gitlab.HTTP, gitlab.HTTPS, gitlab.SSH, gitlab.PROMETHEUS}
        assert ports["NFS"] == {nfs.NFSD, nfs.PORTMAPPER, nfs.MOUNTD}
        assert {haproxy.KUBERNETES_API, haproxy.SUPERVISOR} < ports["Kubernetes Master Nodes"]
