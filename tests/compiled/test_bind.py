"""Images and the fields of a form bound into a compiled pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kubeyolo import __version__
from kubeyolo.catalogue import DETECTOR_RETRAINING, IMAGES
from kubeyolo.compiled.images import IMAGE_NAMES, bind_image_file, image_references, read_images
from kubeyolo.compiled.pipeline import CompiledPipeline, pipeline_names, tasks_of
from kubeyolo.config.text import read_text
from kubeyolo.errors import InputError

DIGEST = "registry.local:5000/team/kubeyolo-train@sha256:" + "a" * 64


def images_of(text: str) -> dict[str, str]:
    executors = next(yaml.safe_load_all(text))["deploymentSpec"]["executors"]
    return {name: executor["container"]["image"] for name, executor in executors.items()}


def test_the_pipelines_name_the_images_of_the_catalogue() -> None:
    assert {name for pipeline in pipeline_names() for name in CompiledPipeline.named(pipeline).image_names} == set(
        IMAGE_NAMES
    )
    assert tuple(f"kubeyolo-{name}" for name in IMAGES) == IMAGE_NAMES
    assert "kubeyolo-evaluate-onnx" in CompiledPipeline.named(DETECTOR_RETRAINING).image_names
    assert "kubeyolo-evaluate-onnx" not in CompiledPipeline.named().image_names
    assert CompiledPipeline.named().image_references[0] == f"kubeyolo-evaluate:{__version__}"


def test_a_reference_replaces_every_use_of_a_name_and_no_other() -> None:
    bound = images_of(CompiledPipeline.named().bind_images({"kubeyolo-train": DIGEST}).text)
    assert bound["exec-train"] == bound["exec-pretrain-backbone"] == DIGEST
    assert bound["exec-evaluate"] == f"kubeyolo-evaluate:{__version__}"


@pytest.mark.parametrize("name", pipeline_names())
def test_nothing_is_tried_again_on_one_machine(name: str) -> None:
    before, after = (
        next(yaml.safe_load_all(text))
        for text in (CompiledPipeline.named(name).text, CompiledPipeline.named(name).without_retries().text)
    )
    assert [task for task, facts in tasks_of(after) if "retryPolicy" in facts] == []
    for _, facts in tasks_of(before):
        facts.pop("retryPolicy", None)
    assert after == before


def test_bound_pipelines_can_be_bound_again_and_keep_all_else() -> None:
    bound = CompiledPipeline.named().bind_images({"kubeyolo-train": DIGEST}).text
    other = DIGEST.replace("aaa", "bbb")
    assert images_of(CompiledPipeline(bound).bind_images({"kubeyolo-train": other}).text)["exec-train"] == other
    back = CompiledPipeline(bound).bind_images({"kubeyolo-train": f"kubeyolo-train:{__version__}"}).text
    assert list(yaml.safe_load_all(back)) == list(yaml.safe_load_all(CompiledPipeline.named().text))


def test_a_bound_pipeline_is_one_that_kfp_loads() -> None:
    from kfp import components

    bound = CompiledPipeline.named().bind_images({"kubeyolo-train": DIGEST}).text
    assert components.load_component_from_text(bound).pipeline_spec.pipeline_info.name == "detector-training"


def test_a_filled_in_form_becomes_the_defaults() -> None:
    before = CompiledPipeline.named().fields
    text = (
        CompiledPipeline.named()
        .bind_defaults({"data": "minio://data/x", "model": "yolov5s-r7", "not a field": "x"})
        .text
    )
    fields = CompiledPipeline(text).fields
    assert fields["data"] == before["data"] | {"defaultValue": "minio://data/x", "isOptional": True}
    assert fields["model"] == before["model"] | {"defaultValue": "yolov5s-r7"}
    changed = {"data", "model"}
    assert {name: facts for name, facts in fields.items() if name not in changed} == {
        name: facts for name, facts in before.items() if name not in changed
    }


def test_a_pipeline_without_choices_keeps_all_else() -> None:
    before, after = CompiledPipeline.named().text, CompiledPipeline.named().without_literals().text
    assert "literals" not in after
    assert {name for name, facts in CompiledPipeline(before).fields.items() if "literals" in facts} == {
        "model",
        "launcher",
    }
    for name, facts in CompiledPipeline(before).fields.items():
        assert CompiledPipeline(after).fields[name] == {key: value for key, value in facts.items() if key != "literals"}
    assert images_of(after) == images_of(before)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"kubeyolo-trian": DIGEST}, "unknown image 'kubeyolo-trian'; did you mean 'kubeyolo-train'"),
        ({"kubeyolo-train": ""}, "kubeyolo-train: '' is not an image reference"),
        ({"kubeyolo-train": "a b"}, "kubeyolo-train: 'a b' is not"),
    ],
)
def test_wrong_images_are_refused(images: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CompiledPipeline.named().bind_images(images)


def test_image_lists_are_read(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(f"kubeyolo-train: {DIGEST}\n")
    bad.write_text("- one\n")
    assert read_images(good) == {"kubeyolo-train": DIGEST}
    with pytest.raises(InputError, match=r"bad\.yaml: expected keys and values at the top level, not a list"):
        read_images(bad)
    with pytest.raises(
        InputError, match=r"absent\.yaml: there is no such file; 'make images' writes it, or give --images"
    ):
        read_images(tmp_path / "absent.yaml")


def test_references_are_from_the_file_and_from_pairs_over_it(tmp_path: Path) -> None:
    file = tmp_path / "images.yaml"
    file.write_text(yaml.safe_dump({name: f"registry/{name}:1" for name in IMAGE_NAMES}))
    bound = bind_image_file(CompiledPipeline.named(), file, [f"kubeyolo-train={DIGEST}"]).text
    found = images_of(bound)
    assert (found["exec-train"], found["exec-evaluate"]) == (DIGEST, "registry/kubeyolo-evaluate:1")
    # A file may have the images of other pipelines too.
    assert (
        set(image_references(CompiledPipeline.named(), file))
        == set(CompiledPipeline.named().image_names)
        < set(IMAGE_NAMES)
    )


def test_missing_and_unknown_images_are_named(tmp_path: Path) -> None:
    file = tmp_path / "images.yaml"
    file.write_text(f"kubeyolo-train: {DIGEST}\n")
    with pytest.raises(InputError, match=r"images\.yaml: no image reference for kubeyolo-evaluate, .*; build the"):
        image_references(CompiledPipeline.named(), file)
    assert image_references(CompiledPipeline.named(), file, complete=False) == {"kubeyolo-train": DIGEST}
    with pytest.raises(InputError, match="unknown image 'kubeyolo-trian'; did you mean 'kubeyolo-train'"):
        image_references(CompiledPipeline.named(), None, [f"kubeyolo-trian={DIGEST}"])
    with pytest.raises(InputError, match="--image 'kubeyolo-train': expected name=reference"):
        image_references(CompiledPipeline.named(), None, ["kubeyolo-train"])


YAML_1_2_OR_GO = ("1e-3", "1E5", "0o17", "0b1", "0x1F", ".5", "1.", "+.inf", ".NaN", "y", "N")
YAML_1_1 = (
    "010",
    "0x10",
    "1_0",
    "yes",
    "Off",
    "true",
    "1:30",
    "2024-01-01",
    "2001-12-14t21:59:43",
    "null",
    "~",
    "",
    "=",
)


@pytest.mark.parametrize("text", [*YAML_1_1, *YAML_1_2_OR_GO])
def test_a_default_that_reads_as_another_value_is_quoted(text: str) -> None:
    bound = CompiledPipeline.named().bind_defaults({"version": text}).text
    assert CompiledPipeline(bound).fields["version"]["defaultValue"] == text
    assert f"        defaultValue: '{text}'\n" in bound
    for again in (
        CompiledPipeline(bound).bind_images({}).text,
        CompiledPipeline(bound).without_literals().text,
        CompiledPipeline(bound).without_retries().text,
    ):
        assert f"        defaultValue: '{text}'\n" in again


@pytest.mark.parametrize("name", pipeline_names())
def test_defaults_of_the_compiled_pipelines_are_texts_for_every_parser(name: str) -> None:
    for line in CompiledPipeline.named(name).text.splitlines():
        key, _, value = line.strip().partition(": ")
        if key == "defaultValue":
            assert value.startswith(("'", '"')) or read_text(value, "a default") == value, line


@pytest.mark.parametrize("text", ["1.0.0", "minio://data/x", "a: b", "{train: {seed: 1}}", "😀", "a\nb", "-", "5s"])
def test_other_defaults_are_kept(text: str) -> None:
    assert CompiledPipeline.named().bind_defaults({"version": text}).fields["version"]["defaultValue"] == text
