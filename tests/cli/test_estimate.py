"""``kubeyolo estimate``: the table, the document, and refused input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kubeyolo.cli.app import main
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.storage.place import Place


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["estimate", *words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_the_table_has_a_row_for_each_kind_and_number_of_devices(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--model", "yolov4", "--data", "118287", "--devices", "8,64,512")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines() if line.strip().startswith("Ascend910")]
    assert [line[:2] for line in lines[:6]] == [
        [kind, count] for kind in ("Ascend910", "Ascend910B") for count in ("8", "64", "512")
    ]
    assert "limited by" in out and "efficiency" in out and "images/s" in out
    # The runs that were published, with their estimates.
    assert "official/cv/YOLOv4/README.md" in out and "390" in out
    assert "not measured on Ascend" in out


def test_the_document_has_the_parts_of_a_step_and_the_sources(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--model", "yolov5s", "--data", "1000", "--devices", "1,8", "--device", "Ascend910", "--json")
    document = json.loads(run(capsys, *words)[1])
    assert (document["images"], document["image_size"], document["per_batch_size"]) == ({"train": 1000}, 640, 8)
    first, second = document["rows"]
    assert (first["devices"], second["devices"]) == (1, 8)
    assert {"compute", "memory", "reduce", "loader", "network", "total"} <= first["step"].keys()
    assert first["step"]["reduce"] == 0 < second["step"]["reduce"]
    [published] = document["published"]
    assert published["images_per_second"] == 450
    assert abs(published["error"]) < 0.25
    assert any("HPCA 2021" in source for source in document["devices"]["Ascend910"]["sources"])


def test_images_of_folders_and_of_stored_data_sets_are_counted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source = generate_sample_dataset(tmp_path / "source", train=6, val=2)
    stored = write_dataset(source, Place.of(tmp_path / "store"))
    for data in (tmp_path / "source", stored.uri):
        document = json.loads(run(capsys, "--data", str(data), "--devices", "1", "--device", "CPU", "--json")[1])
        assert document["images"] == {"train": 6, "val": 2}
        assert [row["device"] for row in document["rows"]] == ["CPU"]
        assert document["devices"] == {}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--data", "100", "--devices", "8,x"), "'x' is not a number from 1 to 65536; write numbers with commas"),
        (("--data", "100", "--devices", "0"), "'0' is not a number from 1 to"),
        (("--data", "100", "--device", "Ascend910C"), "unknown --device 'Ascend910C'; did you mean"),
        (("--data", "100", "--devices", "²"), "'²' is not a number from 1 to"),
        (("--data", "100", "--devices", "9" * 5000), "is not a number from 1 to"),
        (("--data", "0"), "--data 0: no training images"),
        (("--data", "²"), "²: no such folder"),
        (("--data", "9" * 400), "expected at most 1,000,000,000 training images"),
        (("--data", "9" * 5000), "the name is longer than the file system allows"),
        (("--data", "nowhere"), "nowhere"),
        (
            (
                "--model",
                "yolov4-tiny",
                "--data",
                "9",
                "--set",
                "train.multi_scale=true",
                "--set",
                "train.image_size=8192",
            ),
            "such as --set train.sizes=8160,8192, or",
        ),
        (("--data", "9", "--model", "yolov4-p7", "--set", "train.image_size=160"), "needs a multiple of 128"),
    ],
)
def test_wrong_input_is_refused(words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, *words)
    assert code == 2
    assert expected in err
