"""The documents hold what they say: links, commands, settings, paths, the picture and the list of settings."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from config.model import Settings
from docs import picture, settings, zones
from plan import nfs
from plan.contract.rule import Rule
from plan.tools.catalogue import NAMES

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)\s]+)\)")
SETTING = re.compile(r"opstella:([A-Za-z][A-Za-z0-9]*(?:\.[A-Za-z][\w-]*)*)")
# Code spans that are paths of the repository.
FOLDERS = ("config", "plan", "components", "stacks", "scripts", "verify", "bench", "chaos", "lab", "tests", "docs", ".ci")


def listed(*patterns: str) -> list[Path]:
    """Files of the repository, new ones included, made ones not."""
    found = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return sorted(ROOT / name for name in set(found.stdout.splitlines()) if (ROOT / name).is_file())


DOCUMENTS = listed("*.md")
USERS = [d for d in DOCUMENTS if d.name == "README.md" and d.parent == ROOT or d.parent == ROOT / "docs"]
documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
users_documents = pytest.mark.parametrize("document", USERS, ids=lambda d: str(d.relative_to(ROOT)))


def anchors(document: Path) -> set[str]:
    """What a link may name after `#`: headings, as code hosts write them."""
    headings = re.findall(r"^#+ +(.*)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def fields(model: type[BaseModel]) -> dict[str, Any]:
    """Key as a user writes it, to its annotation."""
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}


def below(annotation: Any) -> Any:
    """The model that a setting's annotation holds, `Any` for a map of free keys, None for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is dict:
        return dict
    if origin is Annotated or origin is UnionType or origin is not None and origin is not tuple:
        return next((found for found in map(below, args) if found is not None), None)
    return None


def is_setting(path: str) -> bool:
    """Whether the model has `path`, such as `clusters.standalone.workers.count`."""
    annotation: Any = Settings
    for name in path.split("."):
        holder = below(annotation)
        if holder is dict:
            annotation = get_args(annotation)[1]
        elif holder is None or name not in fields(holder):
            return False
        else:
            annotation = fields(holder)[name]
    return True


def paths(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Every setting of `model`, those of groups and of named ones too; a map of plain values counts as one."""
    found: set[str] = set()
    for name, annotation in fields(model).items():
        holder = below(annotation)
        each = below(get_args(annotation)[1]) if holder is dict else None
        if isinstance(each, type) and issubclass(each, BaseModel):
            found |= paths(each, f"{prefix}{name}.NAME.")
        elif holder is None or holder is dict:
            found.add(prefix + name)
        else:
            found |= paths(holder, f"{prefix}{name}.")
    return found


def test_there_are_documents() -> None:
    assert {d.relative_to(ROOT).as_posix() for d in USERS} >= {
        "README.md", "docs/architecture.md", "docs/operations.md", "docs/reference-traps.md", "docs/settings.md",
    }  # fmt: skip


@documents
def test_links_lead_somewhere(document: Path) -> None:
    wrong = []
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists():
            wrong.append(f"{link}: there is no {target.relative_to(ROOT)}")
        elif anchor and anchor not in anchors(target):
            wrong.append(f"{link}: {target.relative_to(ROOT)} has no such heading")
    assert not wrong


@documents
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"(?:`|^ {4}|^|\()make ([a-z][a-z-]*)", document.read_text(encoding="utf-8"), re.M))
    assert named <= targets


@users_documents
def test_settings_exist(document: Path) -> None:
    named = {
        path.replace("clusters.NAME", "clusters.standalone")
        for path in SETTING.findall(document.read_text(encoding="utf-8"))
        # A resource's type, `opstella:network:LoadBalancer`, is no setting.
        if not re.search(rf"opstella:{re.escape(path)}:", document.read_text(encoding="utf-8"))
    }
    assert named or "opstella:" not in document.read_text(encoding="utf-8"), "the pattern finds nothing"
    assert not [path for path in named if not is_setting(path)]


def test_a_setting_that_is_none_is_seen() -> None:
    assert is_setting("clusters.standalone.workers.count") and is_setting("pki.intermediate.chain")
    assert is_setting("tools.argo-cd.version") and is_setting("media.sha256")
    assert not is_setting("clusters.standalone.workers.number") and not is_setting("pki.intermediat")
    assert not is_setting("domain.name") and not is_setting("tools.argo-cd.versions")


@users_documents
def test_tools_exist(document: Path) -> None:
    assert set(re.findall(r"opstella:tools\.([a-z][a-z-]*)", document.read_text(encoding="utf-8"))) <= set(NAMES)


@users_documents
def test_paths_exist(document: Path) -> None:
    spans = re.findall(r"`([\w./-]+)(?: [^`]*)?`", document.read_text(encoding="utf-8"))
    named = {
        span for span in spans if span.startswith(tuple(f"{folder}/" for folder in FOLDERS)) and "PHASE" not in span
    }
    assert not [span for span in named if not (ROOT / span).exists()]


def test_the_list_of_settings_is_the_models() -> None:
    text = settings.SOURCE.read_text(encoding="utf-8")
    listed_settings = {s.path for s in settings.settings(text) if s.leaf}
    expected = paths(Settings) - {"domains"}
    assert {p for p in listed_settings if not p.startswith("domains.")} == expected


def test_the_list_of_settings_is_up_to_date() -> None:
    assert settings.FILE.read_text(encoding="utf-8") == settings.page(settings.SOURCE.read_text(encoding="utf-8")), (
        "write it again: python -m docs.settings"
    )


def test_the_picture_is_what_the_plan_says() -> None:
    assert picture.FILE.read_text(encoding="utf-8") == picture.drawn(), "draw it again: python -m docs.picture"


@pytest.mark.parametrize("stack", zones.FILES)
def test_the_zones_are_what_the_contract_says(stack: str) -> None:
    assert zones.FILES[stack].read_text(encoding="utf-8") == zones.drawn(stack), "draw them again: python -m docs.zones"


def test_the_picture_refuses_a_flow_that_it_cannot_show(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = Rule(target="nfs", protocols=("tcp",), ports=(1,), source="haproxy", purpose="none")
    monkeypatch.setattr(nfs, "FLOWS", (*nfs.FLOWS, extra))
    with pytest.raises(ValueError, match="haproxy.*nfs"):
        picture.drawn()
