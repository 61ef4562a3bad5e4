"""Images and defaults bound into a compiled pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kubeyolo import __version__
from kubeyolo.errors import InputError
from kubeyolo.runs.bind import (
    bind_defaults,
    bind_images,
    image_names,
    pipeline_text,
    read_images,
    without_retries,
)

IMAGES = ("kubeyolo-evaluate", "kubeyolo-export", "kubeyolo-launch", "kubeyolo-quantize", "kubeyolo-train")
DIGEST = "registry.local:5000/team/kubeyolo-train@sha256:" + "a" * 64


def images_of(text: str) -> dict[str, str]:
    executors = next(yaml.safe_load_all(text))["deploymentSpec"]["executors"]
    return {name: executor["container"]["image"] for name, executor in executors.items()}


def test_the_pipeline_names_its_images() -> None:
    assert image_names(pipeline_text()) == (*IMAGES, "kubeyolo-validate")


def test_a_reference_replaces_every_use_of_a_name_and_no_other() -> None:
    bound = images_of(bind_images(pipeline_text(), {"kubeyolo-train": DIGEST}))
    assert bound["exec-train"] == bound["exec-pretrain-backbone"] == DIGEST
    assert bound["exec-evaluate"] == f"kubeyolo-evaluate:{__version__}"


def test_training_alone_is_tried_again_and_nothing_on_one_machine() -> None:
    def retried(text: str) -> dict[str, dict[str, object]]:
        components = next(yaml.safe_load_all(text))["components"].values()
        tasks = [task for one in components for task in one.get("dag", {}).get("tasks", {}).items()]
        return {name: task["retryPolicy"] for name, task in tasks if "retryPolicy" in task}

    ours = retried(pipeline_text())
    assert list(ours) == ["train"] and ours["train"]["maxRetryCount"] == 3
    # Argo counts this from the start of the first try, so it has to be longer than a training.
    assert ours["train"]["backoffMaxDuration"] == f"{365 * 24 * 3600}s"
    assert retried(without_retries(pipeline_text())) == {}


def test_bound_pipelines_can_be_bound_again_and_keep_their_head() -> None:
    bound = bind_images(pipeline_text(), {"kubeyolo-train": DIGEST})
    other = DIGEST.replace("aaa", "bbb")
    assert images_of(bind_images(bound, {"kubeyolo-train": other}))["exec-train"] == other
    assert bound.startswith("# PIPELINE DEFINITION\n# Name: detector-training\n")


def test_a_bound_pipeline_is_one_that_kfp_loads() -> None:
    from kfp import components

    bound = bind_images(pipeline_text(), {"kubeyolo-train": DIGEST})
    assert components.load_component_from_text(bound).pipeline_spec.pipeline_info.name == "detector-training"


def test_values_become_defaults() -> None:
    text = bind_defaults(pipeline_text(), {"model": "yolov5s", "train": {"max_epoch": 3}})
    parameters = next(yaml.safe_load_all(text))["root"]["inputDefinitions"]["parameters"]
    assert parameters["model"]["defaultValue"] == "yolov5s"
    assert parameters["train_overrides"]["defaultValue"] == {"max_epoch": 3}


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
        bind_images(pipeline_text(), images)


def test_an_unknown_pipeline_is_refused() -> None:
    with pytest.raises(InputError, match="unknown pipeline 'detector'"):
        pipeline_text("detector")


def test_image_lists_are_read(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(f"kubeyolo-train: {DIGEST}\n")
    bad.write_text("- one\n")
    assert read_images(good) == {"kubeyolo-train": DIGEST}
    with pytest.raises(InputError, match=r"bad\.yaml: expected image references by name"):
        read_images(bad)
    with pytest.raises(
        InputError, match=r"absent\.yaml: cannot be read: No such .*; 'make images' writes it, or give --images"
    ):
        read_images(tmp_path / "absent.yaml")
