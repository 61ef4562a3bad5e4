from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kubeyolo.bundle import open_bundle
from kubeyolo.cli.app import main
from kubeyolo.evaluation.operating_points import BEST_THRESHOLDS
from kubeyolo.publishing import derive_bundle
from kubeyolo.storage.place import Place
from tests.prediction.colour_detector import colour_bundle
from tests.prediction.pictures import picture, save


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return colour_bundle(tmp_path_factory.mktemp("colours"))


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def predict(bundle: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, stdin: bytes = b"", of: str = bundle) -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main(["predict", *arguments, "--bundle", of])
        captured = capsys.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    return call


def test_a_bad_file_among_many_is_named_at_the_end_and_the_others_are_done(predict: Any) -> None:
    for number in range(6):
        save(Path(f"many/{number}.png"))
    Path("many/3.png").write_bytes(b"")
    done = predict("many", "--json", "-o", "drawn")
    assert done.code == 1
    assert [one["image"] for one in done.lines] == [f"many/{number}.png" for number in (0, 1, 2, 4, 5)]
    assert done.lines[0] == {
        "image": "many/0.png",
        "width": 128,
        "height": 128,
        "boxes": [{"class": "red", "score": 0.9, "box": [16.0, 24.0, 80.0, 64.0]}],
        "drawn": "drawn/0.png",
    }
    assert sorted(path.name for path in Path("drawn").iterdir()) == [f"{number}.png" for number in (0, 1, 2, 4, 5)]
    *_, named, last = done.err.splitlines()
    assert named.startswith("not read: many/3.png: is empty (zero bytes)")
    assert last == "error: 1 of 6 images cannot be read; all other images are processed"


def test_of_many_bad_files_twenty_are_named(predict: Any) -> None:
    Path("many").mkdir()
    for number in range(25):
        Path(f"many/{number}.jpg").write_bytes(b"hello")
    done = predict("many")
    assert done.code == 1 and done.out == ""
    named = [line for line in done.err.splitlines() if line.startswith("not read: many/")]
    assert len(named) == 20 and "not read: 5 more" in done.err
    assert done.err.splitlines()[-1] == "error: 25 of 25 images cannot be read"


@pytest.mark.parametrize("argument", ["a.gif", "*.webp", "https://host.invalid/a.jpg", "0", "absent.jpg"])
def test_the_only_argument_that_cannot_be_used_is_one_line_and_exit_code_2(predict: Any, argument: str) -> None:
    picture().save("a.gif")
    done = predict(argument, "--json")
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith(f"error: {argument}: ")


def test_a_rerun_writes_over_its_own_pictures_and_adds_none(predict: Any) -> None:
    for name in ("a/x.png", "b/x.png", "b/y.tif"):
        save(Path(name))
    runs = [predict("a", "b", "--json", "-o", "drawn") for _ in range(2)]
    assert runs[0].out == runs[1].out and runs[1].code == 0
    assert [one["drawn"] for one in runs[0].lines] == ["drawn/a/x.png", "drawn/b/x.png", "drawn/b/y.tif.png"]
    assert sum(path.is_file() for path in Path("drawn").rglob("*")) == 3


def test_drawing_below_the_folder_of_the_images_does_not_feed_itself(predict: Any) -> None:
    save(Path("photos/x.png"))
    assert [len(predict("photos", "--json", "-o", "photos/drawn").lines) for _ in range(3)] == [1, 1, 1]


def test_images_are_never_written_over(predict: Any) -> None:
    save(Path("photos/x.png"))
    before = Path("photos/x.png").read_bytes()
    for output in ("photos", "photos/../photos"):
        done = predict("photos/x.png", "-o", output)
        assert done.code == 2 and "the images are in this folder" in done.err
    assert Path("photos/x.png").read_bytes() == before


def test_names_come_from_standard_input_from_lists_and_from_patterns(predict: Any) -> None:
    for name in ("a.png", "b.png", "c d.png"):
        save(Path(name))
    Path("list.txt").write_bytes(b"\xef\xbb\xbfb.png\r\nc d.png\r\n")
    names = [
        [one["image"] for one in predict(*arguments, "--json", stdin=stdin).lines]
        for arguments, stdin in (
            (["-"], b"a.png\nb.png\n"),
            (["-"], b"c d.png\0a.png\0"),
            (["@list.txt"], b""),
            (["a.png", "--list", "list.txt"], b""),
            (["[ab].png"], b""),
            (["b.png", "a.png", "b.png"], b""),
        )
    ]
    assert names == [
        ["a.png", "b.png"],
        ["c d.png", "a.png"],
        ["b.png", "c d.png"],
        ["a.png", "b.png", "c d.png"],
        ["a.png", "b.png"],
        ["b.png", "a.png", "b.png"],
    ]


def test_an_image_on_standard_input_is_named(predict: Any) -> None:
    data = io.BytesIO()
    picture().save(data, "PNG")
    done = predict("-", stdin=data.getvalue())
    assert done.code == 2 and "standard input: is a PNG image, not a list of names" in done.err


def test_boxes_are_those_of_the_image_as_a_viewer_shows_it(predict: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned clockwise by a viewer: what is stored 128 x 64 is shown 64 x 128
    picture(128, 64, red=(10, 8, 60, 24)).save("turned.png", exif=exif)
    (one,) = predict("turned.png", "--json").lines
    assert (one["width"], one["height"]) == (64, 128)
    assert one["boxes"][0]["box"] == [40.0, 10.0, 56.0, 60.0]


def test_the_table_prints_names_as_they_are_and_escapes_what_a_terminal_acts_on(predict: Any, tmp_path: Path) -> None:
    of = colour_bundle(tmp_path / "odd", ["[bold]car[/bold] :smile:", "类\x1b[31m别", "c"])
    save(Path("a[1]:smile:\n.png"), picture(red=(0, 0, 64, 64), green=(64, 64, 128, 128)))
    done = predict("a[1]:smile:\n.png", of=of)
    assert done.code == 0
    head, rule, *rows = done.out.splitlines()
    assert head.split() == ["image", "class", "score", "x1", "y1", "x2", "y2"] and set(rule) == {"─"}
    assert [row.split("  ")[0] for row in rows] == [r"a[1]:smile:\n.png"] * 2
    assert "[bold]car[/bold] :smile:" in rows[0] and r"类\x1b[31m别" in rows[1]
    assert rows[0].split()[-5:] == ["0.9000", "0.0", "0.0", "64.0", "64.0"]


def test_an_image_without_objects_has_a_row_and_thresholds_count(predict: Any) -> None:
    save(Path("a.png"))
    done = predict("a.png", "--conf", "0.95")
    assert done.out.splitlines()[-1].split() == ["a.png", "–"]
    save(Path("b.png"), picture(red=(0, 0, 64, 64), green=(64, 64, 128, 128)))
    (one,) = predict("b.png", "--json", "--set", "predict.max_det=1", "--runtime", "onnx").lines
    assert len(one["boxes"]) == 1


def test_file_names_that_are_not_text_come_back_from_json(predict: Any) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    save(Path(name))
    (one,) = predict(name, "--json").lines
    assert one["image"] == name


def test_a_name_without_a_font_is_said_once(predict: Any, tmp_path: Path) -> None:
    of = colour_bundle(tmp_path / "odd", ["\U000f1234", "b", "c"])
    for name in ("a.png", "b.png"):
        save(Path(name))
    done = predict("a.png", "b.png", "-o", "drawn", of=of)
    assert done.code == 0
    assert sum("no font has the letters of their names: #0" in line for line in done.err.splitlines()) == 1


@pytest.fixture
def process(bundle: str, tmp_path: Path) -> Any:
    """Start a prediction of more images than can be done, and return it after its first results."""
    save(tmp_path / "a.png", picture(1600, 1600))
    (tmp_path / "list.txt").write_text("a.png\n" * 20000)
    command = [sys.executable, "-m", "kubeyolo.cli.app", "predict", "@list.txt", "--json", "-b", bundle]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "KUBEYOLO_CACHE": str(tmp_path / "cache")}
    out = (tmp_path / "out.jsonl").open("wb")
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=subprocess.PIPE, text=True) as run:
        for _ in range(600):
            if (tmp_path / "out.jsonl").stat().st_size > 500:
                break
            time.sleep(0.1)
        yield run
        run.kill()
    out.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_prediction_leaves_whole_lines(process: Any, tmp_path: Path, number: signal.Signals) -> None:
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    text = (tmp_path / "out.jsonl").read_text()
    assert process.returncode == 130
    assert text.endswith("\n")
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines and all(one["boxes"] for one in lines)
    assert err.splitlines()[-1] == f"error: interrupted; {len(lines)} of 20000 images are done and printed"


def test_a_reader_that_goes_away_ends_the_prediction_in_one_line(bundle: str, tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    command = f"{sys.executable} -m kubeyolo.cli.app predict {'a.png ' * 300} --json -b {bundle} | head -1"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "KUBEYOLO_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert json.loads(done.stdout)["image"] == "a.png"
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: standard output was closed by its reader")


def with_thresholds(bundle: str, folder: Path, runtime: str, **classes: float) -> str:
    """Return a copy of a bundle with best thresholds: .3 for all classes together, and those of some classes."""
    metrics = {BEST_THRESHOLDS: {runtime: {"overall": 0.3, "classes": classes}}}
    return derive_bundle(open_bundle(Place.of(bundle)), Place.of(folder), {}, metrics=metrics).uri


@pytest.mark.parametrize("runtime", ["onnx", "mindspore"])
def test_the_best_scores_of_the_classes_are_those_of_the_bundle(
    bundle: str, predict: Any, tmp_path: Path, runtime: str
) -> None:
    save(Path("three.png"), picture(red=(8, 8, 40, 40), green=(60, 8, 90, 40), blue=(8, 60, 40, 100)))
    of = with_thresholds(bundle, tmp_path / runtime, runtime, red=0.85, green=0.95)
    done = predict("three.png", "--json", "--conf", "best", of=of)
    # Every area has a score of .9; blue has no threshold of its own.
    assert done.code == 0 and {box["class"] for box in done.lines[0]["boxes"]} == {"red", "blue"}
    few = predict("three.png", "--json", "--conf", "best", "--set", "predict.max_det=1", of=of)
    assert len(few.lines[0]["boxes"]) == 1
    assert {box["class"] for box in predict("three.png", "--json", "--conf", "0.5", of=of).lines[0]["boxes"]} == {
        *("red", "green", "blue"),
    }


@pytest.mark.parametrize(
    ("kept", "problem"),
    [
        ({"overall": 2}, "overall"),
        ({"overall": None}, "overall"),
        ({"overall": 0.5, "classes": {"red": 7}}, "classes.red"),
        (["0.5"], "best_thresholds of the runtime onnx"),
    ],
)
def test_best_scores_that_are_not_scores_are_refused(
    bundle: str, predict: Any, tmp_path: Path, kept: Any, problem: str
) -> None:
    save(Path("one.png"))
    metrics = {BEST_THRESHOLDS: {"onnx": kept}}
    of = derive_bundle(open_bundle(Place.of(bundle)), Place.of(tmp_path / "derived"), {}, metrics=metrics).uri
    done = predict("one.png", "--conf", "best", of=of)
    assert done.code == 2 and f"--conf best: {of}: best_thresholds of the runtime onnx" in done.err
    assert problem in done.err and "give a score such as --conf 0.25" in done.err


def test_best_scores_that_a_bundle_lacks_are_refused(bundle: str, predict: Any, tmp_path: Path) -> None:
    save(Path("one.png"))
    for of in (bundle, with_thresholds(bundle, tmp_path / "int8", "int8", red=0.5)):
        done = predict("one.png", "--conf", "best", of=of)
        assert done.code == 2 and f"{of} has no best thresholds for the runtime onnx" in done.err
    for score in ("2", "-0.1", "nan", "worst"):
        done = predict("one.png", f"--conf={score}")
        assert done.code == 2 and f"--conf {score}: expected a score from 0 to 1" in done.err


def test_results_as_a_coco_file_and_as_yolo_labels(predict: Any) -> None:
    save(Path("photos/000139.png"), picture(red=(16, 24, 80, 64), blue=(100, 100, 120, 128)))
    save(Path("photos/b/grey.png"), Image.new("RGB", (100, 50), (110, 110, 110)))
    save(Path("photos/c/green.jpg"), picture(256, 128, green=(64, 32, 128, 96)), quality=100)
    done = predict("photos", "--coco", "results/all.json", "--txt", "labels", "--json")
    assert done.code == 0 and len(done.lines) == 3, done.err
    results = json.loads(Path("results/all.json").read_text())
    assert results[0] == {"image_id": 139, "category_id": 1, "bbox": [16.0, 24.0, 64.0, 40.0], "score": 0.9}
    assert [(row["image_id"], row["category_id"]) for row in results] == [(139, 1), (139, 3), ("green.jpg", 2)]
    assert Path("labels/000139.txt").read_text().splitlines() == [
        "0 0.375000 0.343750 0.500000 0.312500",
        "2 0.859375 0.890625 0.156250 0.218750",
    ]
    assert Path("labels/b/grey.txt").read_text() == ""
    line = Path("labels/c/green.txt").read_text().split()
    assert line[0] == "1" and [float(value) for value in line[1:]] == pytest.approx([0.375, 0.5, 0.25, 0.5], abs=0.02)
    assert Path("labels/classes.txt").read_text() == "red\ngreen\nblue\n"
    # The same command again replaces its own files.
    assert predict("photos", "--coco", "results/all.json", "--txt", "labels").code == 0


def test_files_of_results_never_replace_annotations_or_images(predict: Any) -> None:
    save(Path("photos/a.png")), save(Path("more/a.png"))
    Path("labels").mkdir()
    Path("labels/a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    Path("link.json").symlink_to("/dev/null")
    for options, words in (
        (["--txt", "labels"], "--txt labels: the folder has files that this command has not written"),
        (["--coco", "photos/a.png"], "--coco photos/a.png: is an image to read"),
        (["more", "--coco", "a.json"], "photos/a.png and more/a.png have the image id 'a.png'"),
        (["--coco", "photos"], "--coco photos: is a folder; give a file"),
        (["--coco", "link.json"], "--coco link.json: is a link or a device, not a file"),
        (["--coco", "made/classes.txt", "--txt", "made"], "another option writes this file"),
        (["--coco", "drawn/a.png", "-o", "drawn"], "another option writes this file"),
        (["--slice", "20"], "predict.slice = 20 (from --set) is not allowed: expected 0 or"),
        (["--runtime", "int8", "-o", "a/drawn", "--txt", "made", "--coco", "b/c.json"], "int8"),
    ):
        done = predict("photos", *options)
        assert done.code == 2 and words in done.err, done.err
        assert not any(Path(name).exists() for name in ("a", "b", "drawn", "made"))
    assert Path("labels/a.txt").read_text() == "0 0.5 0.5 0.1 0.1\n" and not Path("a.json").exists()


def test_labels_never_replace_the_names_of_the_classes(predict: Any) -> None:
    save(Path("photos/classes.png"), picture(red=(16, 24, 80, 64)))
    assert predict("photos", "--txt", "labels").code == 0
    assert Path("labels/classes.txt").read_text() == "red\ngreen\nblue\n"
    assert Path("labels/classes-2.txt").read_text().startswith("0 ")


def test_missing_images_have_no_image_id(predict: Any) -> None:
    save(Path("photos/a.png"))
    done = predict("photos", "absent-1.png", "absent-2.png", "--coco", "all.json")
    assert done.code == 1 and "2 of 3 images cannot be read" in done.err, done.err
    assert Path("all.json").exists()


def test_an_interrupted_prediction_leaves_no_results_file(predict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from kubeyolo.prediction.result_files import CocoResults

    def interrupted(self: CocoResults, prediction: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CocoResults, "add", interrupted)
    save(Path("photos/a.png"))
    assert predict("photos", "--coco", "out/all.json").code == 130
    assert not Path("out").exists()
