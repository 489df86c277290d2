"""Which keys of a chart count as taking the digest of an image; Helm is a function here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.charts.image_pins import Object, Pins, pins, unpinned

Values = Mapping[str, Any]
TRAEFIK = "docker.io/traefik:v3"


def pod(name: str, *images: str, labels: Mapping[str, str] | None = None, **more: Any) -> Object:
    containers = [{"name": str(number), "image": image} for number, image in enumerate(images)]
    return {
        "kind": "Deployment",
        "metadata": {"name": name, "labels": dict(labels or {}), **more},
        "spec": {"containers": containers},
    }


def found(folder: Path, keys: Values, render: Callable[[Any], list[Object]], *shapes: Values) -> Pins:
    (folder / "Chart.yaml").write_text(yaml.safe_dump({"name": "one", "version": "1.0.0"}))
    (folder / "values.yaml").write_text(yaml.safe_dump(dict(keys)))

    def rendered(values: Values) -> list[Object]:
        merged: dict[str, Any] = {**keys}
        for key, value in values.items():
            merged[key] = (
                {**merged[key], **value} if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
            )
        return render(merged)

    return pins(folder, shapes or ({},), rendered)


def suffix(image: Values) -> str:
    return f":{image['tag']}" + (f"@{image['digest']}" if image.get("digest") else "")


def test_a_digest_comes_before_a_tag(tmp_path: Path) -> None:
    keys = {"image": {"tag": "v3", "digest": ""}}
    assert found(tmp_path, keys, lambda v: [pod("a", f"docker.io/traefik{suffix(v['image'])}")]) == {
        TRAEFIK: {"image.digest": "digest"}
    }


def test_bare_digits_are_told_from_a_whole_digest(tmp_path: Path) -> None:
    def render(values: Any) -> list[Object]:
        sha = values["image"]["sha"]
        return [pod("a", TRAEFIK + (f"@sha256:{sha}" if sha else ""))]

    assert found(tmp_path, {"image": {"sha": ""}}, render) == {TRAEFIK: {"image.sha": "hex"}}


@pytest.mark.parametrize(
    "labels",
    [
        lambda tag: {"app.kubernetes.io/version": tag},  # '@' is not valid there
        lambda tag: {"app": tag.replace("@", "-")[:20]},  # valid, but something may select by it
    ],
)
def test_a_tag_that_is_written_elsewhere_is_not_one_for_a_digest(tmp_path: Path, labels: Any) -> None:
    keys = {"image": {"tag": "v3"}}
    assert (
        found(
            tmp_path,
            keys,
            lambda v: [pod("a", f"docker.io/traefik:{v['image']['tag']}", labels=labels(v["image"]["tag"]))],
        )
        == {}
    )


def test_a_version_label_that_stays_valid_does_no_harm(tmp_path: Path) -> None:
    def render(values: Any) -> list[Object]:
        digest = values["image"]["digest"]
        label = digest.removeprefix("sha256:")[:63] or "v3"
        image = f"docker.io/traefik@{digest}" if digest else TRAEFIK
        return [pod("a", image, labels={"app.kubernetes.io/version": label})]

    assert found(tmp_path, {"image": {"digest": ""}}, render) == {TRAEFIK: {"image.digest": "digest"}}


def test_a_field_for_the_digest_beside_the_image_does_no_harm(tmp_path: Path) -> None:
    def render(values: Any) -> list[Object]:
        sha = values["image"]["sha"]
        one = pod("a", f"{TRAEFIK}@sha256:{sha}" if sha else TRAEFIK)
        return [{**one, "spec": {**one["spec"], **({"sha": sha} if sha else {})}}]

    assert found(tmp_path, {"image": {"sha": ""}}, render) == {TRAEFIK: {"image.sha": "hex"}}


def test_a_key_of_two_images_is_the_key_of_none(tmp_path: Path) -> None:
    keys = {"image": {"tag": "v3"}}
    assert (
        found(
            tmp_path,
            keys,
            lambda v: [pod("a", f"docker.io/one:{v['image']['tag']}", f"docker.io/two:{v['image']['tag']}")],
        )
        == {}
    )


def test_an_image_that_no_keys_reach_everywhere_has_none(tmp_path: Path) -> None:
    def render(values: Any) -> list[Object]:
        return [pod("a", f"docker.io/traefik{suffix(values['image'])}"), pod("b", TRAEFIK)]

    assert found(tmp_path, {"image": {"tag": "v3", "digest": ""}}, render) == {}


def test_several_keys_of_one_image_go_together_and_useless_ones_are_left_out(tmp_path: Path) -> None:
    keys = {"first": {"tag": "v3"}, "second": {"tag": "v3"}, "other": {"tag": "v3"}}

    def render(values: Any) -> list[Object]:
        return [pod(name, f"docker.io/traefik:{values[name]['tag']}") for name in ("first", "second")]

    assert found(tmp_path, keys, render) == {TRAEFIK: {"first.tag": "tag", "second.tag": "tag"}}


def test_it_must_do_so_in_every_shape(tmp_path: Path) -> None:
    keys = {"image": {"tag": "v3", "digest": ""}, "old": {"on": False}}

    def render(values: Any) -> list[Object]:
        image = f"docker.io/traefik{suffix(values['image'])}"
        return [pod("a", TRAEFIK if values["old"]["on"] else image)]

    assert found(tmp_path, keys, render, {}, {"old": {"on": True}}) == {}


def test_what_the_plans_values_name_needs_no_key(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"image": {"tag": "v3"}, "extra": {"image": ""}}

    def render(values: Any) -> list[Object]:
        extra = values["extra"]["image"]
        return [pod("a", f"docker.io/traefik:{values['image']['tag']}", *([extra] if extra else []))]

    assert found(tmp_path, keys, render, {"extra": {"image": "docker.io/plugin:1"}})["docker.io/plugin:1"] == {}
    both = found(tmp_path, keys, render, {"extra": {"image": TRAEFIK}})
    assert both == {TRAEFIK: {"image.tag": "tag"}}, "the plan pins its own, the key the chart's"


def test_arguments_count_and_texts_and_sums_do_not(tmp_path: Path) -> None:
    def render(values: Any) -> list[Object]:
        image = f"docker.io/traefik{suffix(values['image'])}"
        one = pod("a", annotations={"checksum/config": image})
        one["spec"]["containers"] = [{"args": [f"--reloader={image}"]}]
        return [one]

    assert found(tmp_path, {"image": {"tag": "v3", "digest": ""}}, render) == {TRAEFIK: {"image.digest": "digest"}}


def test_what_is_never_pulled_is_not_missed() -> None:
    rendered = [TRAEFIK, "quay.io/thanos/thanos:v1", "docker.io/other:1"]
    assert unpinned({TRAEFIK: {}}, rendered) == ["docker.io/other:1"]
