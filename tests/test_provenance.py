"""Where a bundle comes from: an entry for each step, in the bundle and in its card."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kubeyolo import __version__
from kubeyolo.bundle import MODEL_CARD, WEIGHTS, Bundle, open_bundle
from kubeyolo.processes import IMAGE, RUN
from kubeyolo.provenance import made_now
from kubeyolo.publishing import derive_bundle, publish_bundle
from kubeyolo.report.model_card import model_card
from kubeyolo.source import results_source
from kubeyolo.storage.place import Place
from kubeyolo.training.start import Start
from kubeyolo.weights.importing import LICENCES
from tests.steps.called import publish
from tests.steps.fixed_detector import fixed_manifest

CI = ("KUBEYOLO_RUN_ID", RUN, "GITHUB_RUN_ID", "CI_PIPELINE_ID", "KUBEYOLO_USER", "GITHUB_ACTOR", "GITLAB_USER_LOGIN")


@pytest.fixture(autouse=True)
def outside_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*CI, IMAGE):
        monkeypatch.delenv(name, raising=False)


def trained(folder: Path, **values: object) -> Bundle:
    (folder / "w").write_bytes(b"weights")
    made = made_now("train", {"dataset": "d" * 64, "weights": ""}, "c" * 16)
    return publish_bundle(Place.of(folder / "m"), fixed_manifest(provenance=(made,), **values), {WEIGHTS: folder / "w"})


def test_each_step_adds_an_entry_with_its_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = trained(tmp_path)
    monkeypatch.setenv(IMAGE, "registry/kubeyolo-export@sha256:1")
    monkeypatch.setenv("KUBEYOLO_RUN_ID", "0a1b")
    monkeypatch.setenv("GITHUB_ACTOR", "mona")
    derived = derive_bundle(bundle, Place.of(tmp_path / "d"), {}, step="export_model", inputs={"dataset": "e" * 64})
    train, export = derived.manifest.provenance
    assert (train.step, train.inputs, train.code) == ("train", {"dataset": "d" * 64}, "c" * 16)
    assert (train.version, train.run, train.image) == (__version__, "", "")
    assert export.inputs == {"bundle": bundle.digest, "dataset": "e" * 64}
    assert (export.code, export.run, export.user) == (results_source(), "0a1b", "mona")
    assert export.image == "registry/kubeyolo-export@sha256:1"
    age = datetime.now(UTC) - datetime.fromisoformat(export.time)
    assert timedelta(0) <= age < timedelta(minutes=10)


def test_the_same_bundle_made_again_later_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained(tmp_path)
    monkeypatch.setenv(RUN, "later")
    assert trained(tmp_path).digest == first.digest
    assert open_bundle(Place.of(tmp_path / "m")).manifest.provenance[0].run == ""


@pytest.mark.parametrize(
    ("variables", "user"),
    [
        ({"KUBEYOLO_USER": "ann", "GITHUB_ACTOR": "bot"}, "ann"),
        ({"GITLAB_USER_LOGIN": "bo"}, "bo"),
        ({"KUBEYOLO_USER": ""}, ""),
    ],
)
def test_the_user_is_that_of_the_environment_or_left_out(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], user: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert made_now("train", {}).user == user


def test_the_card_lists_the_steps_and_the_licence_of_weights_that_a_training_started_from(tmp_path: Path) -> None:
    origin = {"file": "yolov5n.pt", "sha256": "a" * 64, "layout": "yolov5", "licence": LICENCES["yolov5"]}
    imported = trained(tmp_path, config={"imported": origin})
    for start in (Start(weights=imported), Start(backbone=imported)):
        manifest = fixed_manifest(config=start.record(("disc",)), provenance=start.provenance)
        card = model_card(manifest.model_dump(mode="json"), {})
        assert "| licence of the weights | AGPL-3.0 for weights that the authors of YOLOv5 publish" in card
        assert f"yolov5n.pt, sha256 {'a' * 64}" in card
        assert f"| train | {imported.manifest.provenance[0].time} | {__version__} | {'c' * 16} |" in card
    published = open_bundle(Place.of(publish(imported.uri, str(tmp_path / "store"), "1.0").bundle))
    card = published.path(MODEL_CARD).read_text()
    assert "AGPL-3.0" in card and f"| dataset {'d' * 64} |" in card
    assert [each.step for each in published.manifest.provenance] == ["train", "publish"]
