"""What holds for every component, whatever it is for; read from the source and from a whole recorded stack."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
from pathlib import Path

import pulumi
import pytest

from tests.support.platform import RECORDED, deployed, four_clusters, plan_of, reference
from tests.support.stack import STACK, Recording, run

ROOT = Path(__file__).parents[2]
MODULES = sorted(p.stem for p in (ROOT / "components").glob("*.py") if p.stem != "__init__")
COMPONENTS = {
    name: member
    for module in MODULES
    for name, member in inspect.getmembers(importlib.import_module(f"components.{module}"), inspect.isclass)
    if issubclass(member, pulumi.ComponentResource) and member.__module__ == f"components.{module}"
}
component = pytest.mark.parametrize("name", sorted(COMPONENTS))


def sources(*folders: str) -> list[tuple[Path, ast.Module]]:
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert paths, folders
    return [(path, ast.parse(path.read_text())) for path in [ROOT / "__main__.py", *paths] if path.exists()]


def dotted(node: ast.expr) -> str:
    return ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""


def constructor(name: str) -> ast.FunctionDef:
    tree = ast.parse(inspect.getsource(COMPONENTS[name]))
    return next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "__init__")


def test_all_components_are_found() -> None:
    assert set(COMPONENTS) >= {
        "Host", "Fleet", "LoadBalancer", "NfsShare", "GitLabServer", "PkiChain", "ClusterNodes", "ToolStack",
    }  # fmt: skip


@component
def test_constructor_and_arguments(name: str) -> None:
    signature = inspect.signature(COMPONENTS[name].__init__)
    assert list(signature.parameters) == ["self", "name", "args", "opts"]
    assert signature.parameters["opts"].default is None
    module = importlib.import_module(COMPONENTS[name].__module__)
    arguments = getattr(module, f"{name}Args")
    assert dataclasses.is_dataclass(arguments)
    assert arguments.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(arguments))


@component
def test_the_type_token_names_the_class(name: str) -> None:
    call = next(
        n for n in ast.walk(constructor(name)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "super().__init__"
    )
    token = call.args[0]
    assert isinstance(token, ast.Constant) and re.fullmatch(rf"opstella:[a-z]+:{name}", str(token.value))


@component
def test_outputs_are_declared_in_the_last_line_and_in_the_docstring(name: str) -> None:
    last = constructor(name).body[-1]
    assert isinstance(last, ast.Expr) and isinstance(last.value, ast.Call)
    assert ast.unparse(last.value.func) == "self.register_outputs"
    declared = last.value.args[0]
    assert isinstance(declared, ast.Dict)
    text = " ".join((COMPONENTS[name].__doc__ or "").split())
    sentence = re.search(r"Outputs: (.*?)\.(?: |$)", text)
    assert sentence, f"{name}'s docstring does not say `Outputs: …`"
    names = re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", sentence[1]))
    assert names == [ast.literal_eval(key) for key in declared.keys if key is not None]


@component
def test_its_own_options_go_nowhere_but_to_the_base_class(name: str) -> None:
    uses = [n for n in ast.walk(constructor(name)) if isinstance(n, ast.Name) and n.id == "opts"]
    given = next(
        n for n in ast.walk(constructor(name)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "super().__init__"
    )
    inherited = [n for n in ast.walk(given) if isinstance(n, ast.Name) and n.id == "opts"]
    assert len(inherited) == len(uses) == 1, f"{name} passes its opts on"


def test_only_host_sends_anything_to_a_machine() -> None:
    for path, tree in sources("components", "stacks", "config", "plan"):
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and re.search(r"(^|\.)Command$|CopyToRemote$", dotted(n.func))]  # fmt: skip
        assert not calls or path.name == "host.py", f"{path.name}:{calls[0].lineno}"


def test_what_a_command_printed_is_read_in_host_only() -> None:
    """Which knows what of it is the reply of the phase, and what the login printed."""
    for path, tree in sources("components"):
        read = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in ("stdout", "stderr") and dotted(n.value) != "sys"]
        assert not read or path.name == "host.py", f"{path.name}:{read[0].lineno}"


@pytest.mark.parametrize("architecture", RECORDED)
def test_what_is_deleted_is_deleted_before_it_is_made_again(preview: bool, architecture: str) -> None:
    """The engine's default is the reverse: a replacement would install on a machine and then uninstall there."""
    deleted = [r for r in whole(preview, architecture).commands if "delete" in r.inputs]
    assert {r.name.rpartition("-")[2] for r in deleted} >= {"rke2", "ready"}
    assert not [r.name for r in deleted if not r.request.deleteBeforeReplace]


def test_settings_are_read_in_config_only() -> None:
    reader = re.compile(r"(^|\.)(Config|require_secret|get_secret|CONFIG)$")
    for path, tree in sources("components", "stacks", "plan", "verify"):
        found = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute | ast.Name) and reader.search(dotted(n))]
        assert not found, f"{path}:{found[0].lineno}"


def test_the_plan_knows_nothing_of_pulumi() -> None:
    for path, tree in sources("plan"):
        for node in ast.walk(tree):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert path.name == "__main__.py" or not [m for m in modules if re.match(r"(pulumi|components|stacks)\b", m)], path  # fmt: skip


def test_the_product_knows_nothing_of_doubles_and_tests() -> None:
    for path, tree in sources("components", "stacks", "plan", "config", "verify"):
        for node in ast.walk(tree):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [module]
            assert not [n for n in names if re.match(r"(lab|tests|bench)\b", n)], path


def test_no_password_comes_from_a_resource_that_shows_it() -> None:
    """The id of a RandomString is its value, in clear."""
    for path, tree in sources("components", "stacks"):
        assert not [n for n in ast.walk(tree) if dotted(n).endswith("RandomString")], path  # type: ignore[arg-type]


def test_nothing_is_registered_or_exported_inside_an_apply() -> None:
    made = re.compile(r"^(random|tls|kubernetes|remote|local|pulumi\.export)\b")
    for path, tree in sources("components", "stacks"):
        for call in [n for n in ast.walk(tree) if isinstance(n, ast.Call) and dotted(n.func).endswith(".apply")]:
            inside = [n for a in call.args for n in ast.walk(a) if isinstance(n, ast.Call) and made.match(dotted(n.func))]
            assert not inside, f"{path}:{call.lineno}"


def test_files_are_one_noun() -> None:
    for path, _ in sources("components", "stacks", "plan", "config"):
        lines = len(path.read_text().splitlines())
        assert lines <= (40 if path == ROOT / "__main__.py" else 300), f"{path}: {lines} lines"


def whole(preview: bool, architecture: str) -> Recording:
    return reference(architecture, preview)


@pytest.mark.parametrize("architecture", RECORDED)
def test_every_component_has_children_named_after_it(preview: bool, architecture: str) -> None:
    found = whole(preview, architecture)
    assert {c.type.rpartition(":")[2] for c in found.components} == set(COMPONENTS)
    for one in found.components:
        children = found.children(one)
        assert [c for c in children if c.custom] or one.type == "opstella:host:Fleet", f"{one.name} is empty"
        for child in children:
            assert child.name.startswith(f"{one.name}-"), f"{child.name} in {one.name}"


@pytest.mark.parametrize("architecture", RECORDED)
def test_nothing_but_components_stands_at_the_top(preview: bool, architecture: str) -> None:
    found = whole(preview, architecture)
    top = [r for r in found.resources if r.parent == found.stack]
    assert top and not [r.name for r in top if r.custom]
    urns = {r.urn for r in found.components} | {found.stack}
    assert not [r.name for r in found.resources if r.type != STACK and r.parent not in urns]


@pytest.mark.parametrize("architecture", RECORDED)
def test_every_component_declares_outputs(preview: bool, architecture: str) -> None:
    found = whole(preview, architecture)
    assert not [c.name for c in found.components if not found.declared.get(c.urn)]


@four_clusters
def test_names_are_unique_by_type() -> None:
    found = reference("multicluster")
    urns = [r.urn for r in found.resources]
    assert len(urns) == len(set(urns))


def test_a_components_options_stay_its_own(preview: bool) -> None:
    """Given depends_on and an alias, a component's children still hang on it and carry neither."""
    from components.passwords import Passwords, PasswordsArgs
    from components.pki_chain import PkiChain, PkiChainArgs
    from components.tool_stack import ToolStack, ToolStackArgs

    plan = plan_of()

    def stack() -> None:
        outer = pulumi.ComponentResource("test:outer:Outer", "outer")
        opts = pulumi.ResourceOptions(parent=outer, aliases=[pulumi.Alias(name="before")], ignore_changes=["x"])
        pki = PkiChain("pki", PkiChainArgs(tree=plan.ca), opts)
        releases = plan.releases["standalone"]
        passwords = Passwords("passwords", PasswordsArgs(clusters={"c": [p for r in releases for p in r.passwords]}))
        ToolStack(
            "tools",
            ToolStackArgs(
                cluster="c", kubeconfig="k", releases=releases, passwords=passwords, ca_bundle=pki.ca_bundle,
                authority_chain=pki.authority_chain, authority_key=pki.intermediate_key,
            ),
            pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[pki])),
        )  # fmt: skip

    found = run(stack, preview=preview)
    outer = found.named("outer")
    for name in ("pki", "tools"):
        one = found.named(name)
        assert one.parent == outer.urn
        children = found.children(one)
        assert len(children) > 5
        for child in children:
            assert "x" not in child.request.ignoreChanges
            assert "before" not in [a.spec.name for a in child.request.aliases]
    assert {c.name for c in found.children(outer)} == {"pki", "tools"}


def test_a_stack_is_recorded_anew_each_time() -> None:
    """The shared recordings are no special case: a run of its own registers the same."""
    again = deployed(plan_of())
    assert {r.urn for r in again.resources} == {r.urn for r in reference("standalone").resources}
