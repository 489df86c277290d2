"""The builder, lab/toolchain/build, with small recipes of the tests' own in a tree and cache of their own."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.toolchain

BUILDER = Path(__file__).parents[2] / "lab/toolchain/build"


class Tree:
    """A project with a builder and recipes, and its cache."""

    def __init__(self, root: Path) -> None:
        self.root = root / "project"
        self.cache = root / "cache"
        (self.root / "lab/toolchain/recipes").mkdir(parents=True)
        shutil.copy(BUILDER, self.root / "lab/toolchain/build")

    def recipe(self, name: str, body: str, inputs: str = "", path: str | None = None) -> Path:
        """A recipe that counts its runs in runs-NAME and then does `body` with $out set."""
        file = self.root / (path or f"lab/toolchain/recipes/{name}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            f"#!/bin/bash\nset -euo pipefail\nif [ \"${{1:-}}\" = --inputs ]; then printf '%s\\n' {inputs or 'v1'}; "
            f'exit; fi\nout=$1\necho run >> runs-{name}\n{body}\n'
        )
        file.chmod(0o755)
        return file

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("OPSTELLA_")}
        return subprocess.Popen(
            [self.root / "lab/toolchain/build", *arguments],
            env={**kept, "OPSTELLA_CACHE": str(self.cache), **environment},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def build(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        child = self.start(*arguments)
        out, err = child.communicate(timeout=60)
        assert child.returncode == status, err
        return out.strip(), err

    def runs(self, name: str) -> int:
        file = self.root / f"runs-{name}"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def leftovers(self) -> list[str]:
        return [p.name for p in self.cache.rglob("*") if p.name.endswith((".part", ".new"))]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_builds_once_and_prints_only_the_folder_on_stdout(tree: Tree) -> None:
    tree.recipe("tool", 'echo chatter; echo text > "$out/tool"')
    first, progress = tree.build("tool")
    second, silence = tree.build("tool")
    assert first == second and Path(first).parent == tree.cache / "tool"
    assert (Path(first) / "tool").read_text() == "text\n"
    assert tree.runs("tool") == 1
    assert "tool: building" in progress and "tool: built in" in progress and silence == ""


def test_a_changed_input_file_a_changed_version_and_a_changed_recipe_each_build_again(tree: Tree) -> None:
    (tree.root / "pins").mkdir()
    (tree.root / "pins/a").write_text("1")
    tree.recipe("tool", 'cat pins/a > "$out/a"', inputs="pins v1")
    folders = [tree.build("tool")[0]]
    (tree.root / "pins/a").write_text("2")
    folders.append(tree.build("tool")[0])
    tree.recipe("tool", 'cat pins/a > "$out/a"', inputs="pins v2")
    folders.append(tree.build("tool")[0])
    tree.recipe("tool", 'cat pins/a > "$out/b"', inputs="pins v2")
    folders.append(tree.build("tool")[0])
    assert len(set(folders)) == 4 and tree.runs("tool") == 4
    assert (Path(folders[0]) / "a").read_text() == "1", "an older folder, perhaps in use, was touched"
    (tree.root / "pins/__pycache__").mkdir()
    (tree.root / "pins/__pycache__/x.pyc").write_text("made by running, not by editing")
    assert tree.build("tool")[0] == folders[-1]


def test_what_a_recipe_asks_for_is_part_of_its_key(tree: Tree) -> None:
    tree.recipe("base", 'echo 1 > "$out/base"')
    tree.recipe("top", 'cp "$(lab/toolchain/build base)/base" "$out/top"')
    first, _ = tree.build("top")
    tree.recipe("base", 'echo 2 > "$out/base"')
    second, _ = tree.build("top")
    assert (Path(second) / "top").read_text() == "2\n" and first != second
    assert tree.build("top")[0] == second and tree.runs("top") == 2


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / "part/two").unlink(), "part/two is gone"),
        (lambda folder: (folder / "part/two").write_text("2"), "part/two has 1 bytes instead of 4"),
        (lambda folder: folder.with_name(folder.name + ".json").unlink(), "half-written"),
        (lambda folder: folder.with_name(folder.name + ".json").write_text('{"files": {'), "half-written"),
        (lambda folder: shutil.rmtree(folder), "building"),
    ],
    ids=["file-gone", "file-cut", "no-manifest", "cut-manifest", "folder-gone"],
)
def test_a_half_written_folder_is_built_again(tree: Tree, damage, named: str) -> None:
    tree.recipe("tool", 'mkdir "$out/part"; echo one > "$out/one"; echo two > "$out/part/two"')
    folder = Path(tree.build("tool")[0])
    damage(folder)
    again, progress = tree.build("tool")
    assert again == str(folder) and named in progress and tree.runs("tool") == 2
    assert (folder / "part/two").read_text() == "two\n"
    assert tree.build("tool")[1] == ""


def test_a_folder_that_only_has_the_right_name_is_not_taken_for_the_artifact(tree: Tree) -> None:
    tree.recipe("tool", 'echo good > "$out/tool"')
    folder = Path(tree.build("tool")[0])
    shutil.rmtree(tree.cache)
    folder.mkdir(parents=True)
    (folder / "tool").write_text("good\n")
    tree.build("tool")
    assert tree.runs("tool") == 2


def test_two_at_once_build_once(tree: Tree) -> None:
    tree.recipe("tool", 'sleep 1; echo text > "$out/tool"')
    both = [tree.start("tool"), tree.start("tool")]
    outputs = [child.communicate(timeout=60) for child in both]
    assert [child.returncode for child in both] == [0, 0]
    assert outputs[0][0] == outputs[1][0] != ""
    assert tree.runs("tool") == 1
    assert sum("waiting for another build of it (process" in err for _, err in outputs) == 1


def test_parallel_builds_share_what_they_both_need(tree: Tree) -> None:
    tree.recipe("base", 'sleep 0.5; echo 1 > "$out/base"')
    for name in ("left", "right"):
        tree.recipe(name, 'lab/toolchain/build base > "$out/uses"')
    out, _ = tree.build("--parallel", "2", "left", "right")
    assert [Path(line).parent.name for line in out.splitlines()] == ["left", "right"]
    assert tree.runs("base") == 1


def test_a_failing_recipe_is_reported_with_its_output_and_leaves_nothing(tree: Tree) -> None:
    tree.recipe("tool", 'echo text > "$out/tool"; echo "linker: no space left" >&2; exit 3')
    out, err = tree.build("tool", status=1)
    assert out == ""
    for part in ("recipe of tool", "lab/toolchain/recipes/tool", "exited with 3", "linker: no space left", "build.log"):
        assert part in err
    assert "lab/toolchain/build tool" in err.splitlines()[-1]
    assert tree.leftovers() == [] and not list((tree.cache / "tool").glob("*.json"))
    tree.recipe("tool", 'echo text > "$out/tool"')
    tree.build("tool")


def test_a_recipe_that_writes_nothing_has_failed(tree: Tree) -> None:
    tree.recipe("tool", "true")
    assert "wrote nothing" in tree.build("tool", status=1)[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_is_taken_up_again(tree: Tree, number: int) -> None:
    tree.recipe("tool", 'echo $$ > pid; echo half > "$out/tool"; [ -e go-on ] || sleep 60; echo text > "$out/tool"')
    child = tree.start("tool")
    pid = tree.root / "pid"
    deadline = time.monotonic() + 20
    while not (pid.exists() and pid.read_text().strip()):
        assert time.monotonic() < deadline, "the recipe did not start"
        time.sleep(0.05)
    child.send_signal(number)
    child.communicate(timeout=20)
    assert child.returncode != 0
    recipe = int(pid.read_text())
    if number == signal.SIGKILL:
        os.killpg(recipe, signal.SIGKILL)  # nothing could tell the recipe
    else:
        assert not Path(f"/proc/{recipe}").exists(), "the recipe outlived its builder"
        assert tree.leftovers() == []
    (tree.root / "go-on").touch()
    folder, progress = tree.build("tool")
    assert (Path(folder) / "tool").read_text() == "text\n" and tree.leftovers() == []
    assert ("interrupted build left" in progress) == (number == signal.SIGKILL)


def test_recipes_are_found_in_the_rooms(tree: Tree) -> None:
    tree.recipe("image", 'touch "$out/x"', path="lab/image/recipe")
    tree.recipe("media", 'touch "$out/x"', path="lab/rke2/recipe-media")
    tree.recipe("debs", 'touch "$out/x"', path="lab/services/recipes/debs")
    file = tree.recipe("rke2-double", 'touch "$out/x"', path="lab/rke2/recipe")
    file.write_text(file.read_text().replace("#!/bin/bash\n", "#!/bin/bash\n# artifact: rke2-double\n"))
    listed, _ = tree.build("--list")
    assert [line.split()[0] for line in listed.splitlines()] == ["debs", "image", "media", "rke2-double"]
    out, _ = tree.build("image", "media", "debs", "rke2-double")
    assert [Path(line).parent.name for line in out.splitlines()] == ["image", "media", "debs", "rke2-double"]


def test_an_unknown_artifact_is_named_with_the_known_ones_before_anything_is_built(tree: Tree) -> None:
    tree.recipe("tool", 'touch "$out/x"')
    _, err = tree.build("tool", "tol", status=1)
    assert "'tol'" in err and "Known artifacts: tool" in err and tree.runs("tool") == 0


def test_two_recipes_for_one_artifact_are_refused(tree: Tree) -> None:
    tree.recipe("image", 'touch "$out/x"')
    tree.recipe("image", 'touch "$out/x"', path="lab/image/recipe")
    _, err = tree.build("image", status=1)
    assert "two recipes for the artifact image" in err and "lab/image/recipe" in err and "recipes/image" in err


def test_artifacts_that_need_each_other_are_refused(tree: Tree) -> None:
    tree.recipe("egg", 'lab/toolchain/build hen > "$out/x"')
    tree.recipe("hen", 'lab/toolchain/build egg > "$out/x"')
    _, err = tree.build("egg", status=1)
    assert "in a circle: egg -> hen -> egg" in err


def test_a_recipe_whose_inputs_fail_is_reported(tree: Tree) -> None:
    tree.recipe("tool", "true").write_text("#!/bin/bash\necho broken pin >&2\nexit 2\n")
    _, err = tree.build("tool", status=1)
    assert "recipes/tool --inputs exited with 2" in err and "broken pin" in err


def test_prune_keeps_what_is_current(tree: Tree) -> None:
    tree.recipe("tool", 'echo 1 > "$out/x"')
    old, _ = tree.build("tool")
    tree.recipe("tool", 'echo 2 > "$out/x"')
    new, _ = tree.build("tool")
    tree.build("--prune")
    assert not Path(old).exists() and Path(new).is_dir()
    assert {p.name for p in (tree.cache / "tool").glob("*.json")} == {f"{Path(new).name}.json"}
    assert tree.build("tool") == (new, "")
    assert json.loads(Path(f"{new}.json").read_text())["files"] == {"x": 2}


def test_a_cache_that_cannot_be_written_is_named(tree: Tree) -> None:
    tree.recipe("tool", 'touch "$out/x"')
    tree.cache.write_text("a file where the folder should be")
    _, err = tree.build("tool", status=1)
    assert str(tree.cache) in err and "OPSTELLA_CACHE" in err
