"""Which changes of the source make weights and results of an earlier version stale, and which do not."""

from __future__ import annotations

import ast
import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from kubeyolo import source
from kubeyolo.config.schema import Config

PACKAGE = Path(source.__file__).parent
READ_BY_TRAINING = {"data", "augment", "pretrain", "train"}


@pytest.fixture(scope="module", autouse=True)
def parsed_once() -> Iterator[None]:
    """Parse equal contents once: most copies differ by one file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "tree_text", functools.cache(source.tree_text))
        yield


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package that nobody edits."""
    return copy_package(PACKAGE, tmp_path_factory.mktemp("package"))


@pytest.fixture
def edit(package: Path, tmp_path: Path) -> Callable[..., tuple[bool, bool]]:
    """Change one file of a fresh copy; return whether the digests of weights and of results changed."""

    def change(name: str, pattern: str, replacement: str) -> tuple[bool, bool]:
        root = copy_package(package, tmp_path)
        path = root / name
        before = path.read_text()
        # The pattern is looked for in the code, after the docstring of the module.
        start = before.index('"""', 3) if name.endswith(".py") and before.startswith('"""') else 0
        after, count = re.subn(pattern, replacement, before[start:], count=1, flags=re.MULTILINE)
        assert count == 1, f"{name} has nothing like {pattern}"
        path.write_text(before[:start] + after)
        return changed(package, root)

    return change


def copy_package(package: Path, folder: Path) -> Path:
    return Path(shutil.copytree(package, folder / "kubeyolo", ignore=shutil.ignore_patterns("__pycache__")))


def changed(package: Path, root: Path) -> tuple[bool, bool]:
    return (
        source.weights_source(root) != source.weights_source(package),
        source.results_source(root) != source.results_source(package),
    )


@pytest.mark.parametrize(
    ("name", "pattern", "replacement"),
    [
        pytest.param("losses/assign.py", r'^(def [^"]+:\n    """)', r"\1Changed. ", id="docstring of a function"),
        pytest.param("losses/iou.py", r"^def ", "# A comment.\n\n\ndef ", id="comment and blank lines"),
        pytest.param("losses/iou.py", r"^(from __future__ .*)$", r"\1  # why", id="comment after code"),
        pytest.param("data/class_images.py", r'raise InputError\(f"', r"\g<0>changed: ", id="text of an error"),
        pytest.param("data/loader.py", r'WorkError\(f"', r"\g<0>changed: ", id="text of an error that is returned"),
        pytest.param("training/loop.py", r'_show\(f"', r"\g<0>changed {epoch} ", id="line of a log"),
        pytest.param("config/schema.py", r'description="', r"\g<0>Changed. ", id="description of a setting"),
        pytest.param("cli/app.py", r"^def ", "CHANGED = 1\n\n\ndef ", id="command line"),
        pytest.param("launch/local.py", r"^def ", "CHANGED = 1\n\n\ndef ", id="launcher"),
        pytest.param("storage/local.py", r"^class ", "CHANGED = 1\n\n\nclass ", id="storage"),
        pytest.param("__init__.py", r'__version__ = "', r"\g<0>9", id="version"),
        pytest.param(
            "config/presets/yolov5n-r7.yaml",
            r"\Z",
            "\ntrain.lr: 0.5\n",
            id="preset, whose values are in what a step is handed",
        ),
    ],
)
def test_wording_and_the_way_a_step_is_started_change_neither_digest(
    edit: Callable[..., tuple[bool, bool]], name: str, pattern: str, replacement: str
) -> None:
    assert edit(name, pattern, replacement) == (False, False)


@pytest.mark.parametrize(
    ("name", "pattern", "replacement"),
    [
        pytest.param("report/templates/base.html", r"<body", "<body id='changed'", id="template of a report"),
        pytest.param("report/templates/style.css", r"\Z", "\np { color: red }\n", id="style of a report"),
        pytest.param("report/templates/script.js", r"\Z", "\nlet changed = 1;\n", id="script of a report"),
        pytest.param("report/charts.py", r"^def ", "CHANGED = 1\n\n\ndef ", id="charts"),
        pytest.param("evaluation/confusion.py", r"^def ", "CHANGED = 1\n\n\ndef ", id="evaluation"),
        pytest.param("quantization/int8.py", r"^def ", "CHANGED = 1\n\n\ndef ", id="quantization"),
        pytest.param("training/result.py", r'RESULT_NAME = "', r"\g<0>un", id="result of a training"),
        pytest.param("data/shapes.py", r"SMALLEST = ", r"\g<0>1", id="generated data set"),
        pytest.param(
            "config/schema.py",
            r"(class EvaluateConfig[\s\S]+?conf_threshold: [\s\S]+?default=0.0)",
            r"\g<1>1",
            id="setting",
        ),
    ],
)
def test_what_shapes_results_alone_leaves_weights_valid(
    edit: Callable[..., tuple[bool, bool]], name: str, pattern: str, replacement: str
) -> None:
    assert edit(name, pattern, replacement) == (False, True)


@pytest.mark.parametrize(
    ("name", "pattern", "replacement"),
    [
        pytest.param("losses/iou.py", r"(return .*) \* ", r"\1 / ", id="operator of a loss"),
        pytest.param("losses/darknet.py", r"(= [^\n]*)\b1\b", r"\g<1>2", id="constant of a loss"),
        pytest.param(
            "config/training_schema.py",
            r"(class TrainConfig[\s\S]+? lr: [\s\S]+?default=0\.0)1",
            r"\g<1>2",
            id="default",
        ),
        pytest.param(
            "config/training_schema.py", r"(class TrainConfig[\s\S]+? lr: [\s\S]+?)gt=0", r"\g<1>ge=0", id="range"
        ),
        pytest.param("data/augment.py", r"rng\.uniform\(", "rng.normal(", id="augmentation"),
        pytest.param("data/crops.py", r"^CONTEXT = ", r"\g<0>1 + ", id="crops for pretraining"),
        pytest.param("models/blocks.py", r"^class ", "CHANGED = 1\n\n\nclass ", id="network"),
        pytest.param("models/darknet_facts.py", r"strides=\(8", "strides=(4", id="facts of a network"),
        pytest.param("runtime.py", r"AVX2", "AVX", id="setting of MindSpore"),
        pytest.param("evaluation/nms.py", r"^def ", "CHANGED = 1\n\n\ndef ", id="evaluation that chooses weights"),
        pytest.param("training/validation.py", r"epoch \+ 1 ==", "epoch ==", id="validation while training"),
        pytest.param("config/validation_interval.py", r"RATIO = 0", "RATIO = 1", id="interval of validations"),
    ],
)
def test_what_weights_depend_on_changes_both_digests(
    edit: Callable[..., tuple[bool, bool]], name: str, pattern: str, replacement: str
) -> None:
    assert edit(name, pattern, replacement) == (True, True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("losses/focal.py", (True, True)),
        ("data/copy_paste.py", (True, True)),
        ("data/readers/kitti.py", (False, True)),
        ("export/tensorrt.py", (False, True)),
        ("drift.py", (False, True)),
        ("report/templates/drift.html", (False, True)),
        ("cli/drift.py", (False, False)),
        ("kubeflow/client.py", (False, False)),
        ("losses/notes.txt", (False, False)),
    ],
)
def test_a_new_file_counts_where_its_folder_does(
    package: Path, tmp_path: Path, name: str, expected: tuple[bool, bool]
) -> None:
    root = copy_package(package, tmp_path)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text('"""A new file."""\n')
    assert changed(package, root) == expected


def test_a_removed_and_a_renamed_module_change_the_digest(package: Path, tmp_path: Path) -> None:
    root = copy_package(package, tmp_path / "renamed")
    (root / "losses/iou.py").rename(root / "losses/overlap.py")
    assert changed(package, root) == (True, True)
    root = copy_package(package, tmp_path / "removed")
    (root / "losses/iou.py").unlink()
    assert changed(package, root) == (True, True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(): pass", 'def f():\n    """Docstring."""'),
        ("LIMIT = 1", 'LIMIT = 1\n"""What it is."""'),
        ("f(1, 2)", "f(\n    1,\n    2,\n)"),
        ("raise InputError('a')", "raise InputError(f'b {x:.2f}' 'c')"),
        ("raise InputError(f'{name}') from error", "raise InputError(f'{other} is wrong') from error"),
        ("raise ValueError('; '.join(lines))", "raise ValueError(', '.join(lines))"),
        ("e = storage.NotFound('a')", "e = storage.NotFound('b')"),
        ("self._show(f'step {step}')", "self._show('step')"),
        ("logger.debug('a %s', x)", "logger.debug('b: %s', x)"),
        ("refuse(where, bad, lambda i: f'image {i}', 'remove it')", "refuse(where, bad, lambda i: 'image', 'keep it')"),
        ("with Progress(f'reading {name}', 3): pass", "with Progress('reading', 3): pass"),
        ("x: int = Field(default=1, description='a')", "x: int = Field(default=1)"),
        ("x = typer.Option(1, help='a')", "x = typer.Option(1, help=HELP)"),
    ],
)
def test_wording_is_no_part_of_the_tree(one: str, other: str) -> None:
    assert source.tree_text(one) == source.tree_text(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 'a'", "x = b'a'"),
        ("x = 0.0", "x = -0.0"),
        ("x = y + z", "x = y - z"),
        ("x = 'mean'", "x = 'sum'"),
        ("x = f'{a}b'", "x = f'{a}c'"),
        ("x = f'{a:.2f}'", "x = f'{a:.3f}'"),
        ("x = [[a], b]", "x = [[a, b]]"),
        ("f(a, b=c)", "f(a, c)"),
        ("f(description='a')", "f(description='b')"),
        ("raise InputError('a')", "raise WorkError('a')"),
        ("raise InputError(code(1))", "raise InputError(code(2))"),
        ("show(f(1))", "show(f(2))"),
        ("x = ops.log('a')", "x = ops.log('b')"),
        ("for x in track(read('train'), 'a'): pass", "for x in track(read('val'), 'a'): pass"),
        ("x: int = Field(default=1, ge=0)", "x: int = Field(default=1, ge=1)"),
        ("x: int = 1", "x: float = 1"),
        ("async def f(): pass", "def f(): pass"),
    ],
)
def test_what_is_computed_is_part_of_the_tree(one: str, other: str) -> None:
    assert source.tree_text(one) != source.tree_text(other)


def test_every_module_that_training_imports_is_counted_or_known_to_have_no_effect(package: Path) -> None:
    names = {name for name in training_imports(package) if not source.counts_for_weights(name)}
    names -= {name for name in names if is_empty(package / name)}
    unknown = sorted(name for name in names if not lies_in(name, source.NO_WEIGHTS))
    assert not unknown, f"do weights depend on {unknown}? Add them to WEIGHTS or NO_WEIGHTS in kubeyolo/source.py"


def test_evaluation_and_weights_files_are_imported_for_validation_alone(package: Path) -> None:
    # The files of the best weights are written by the room weights.
    names = training_imports(package, "training/validation.py", "training/best.py")
    assert "training/detector.py" in names
    assert not [name for name in names if lies_in(name, ("evaluation", "weights"))]


def test_the_walk_over_imports_finds_lazy_imports_networks_and_workers(package: Path) -> None:
    assert {
        "training/pretrain.py",
        "losses/build.py",
        "evaluation/predictor.py",
        "models/yolov5.py",
        "data/worker.py",
        "processes.py",
        "__init__.py",
    } <= training_imports(package)


def test_every_name_of_the_lists_exists(package: Path) -> None:
    for name in (*source.WEIGHTS, *source.NO_WEIGHTS):
        assert (package / name).exists(), f"{name} of kubeyolo/source.py does not exist"
    classes = {
        node.name for node in ast.parse((package / "config/schema.py").read_text()).body if hasattr(node, "name")
    }
    assert classes >= source.OTHER_SECTIONS


def test_every_section_of_the_settings_is_read_by_training_or_listed_as_another() -> None:
    types = {name: getattr(field.annotation, "__name__", "") for name, field in Config.model_fields.items()}
    sections = {name for name, type_name in types.items() if type_name.endswith("Config")}
    others = {name for name in sections if types[name] in source.OTHER_SECTIONS}
    assert sections - others == READ_BY_TRAINING


def test_the_digests_of_the_library_are_those_of_its_files(tmp_path: Path) -> None:
    digests = source.weights_source(), source.results_source()
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in digests)
    assert digests[0] != digests[1]
    program = "from kubeyolo import source; print(source.weights_source(), source.results_source())"
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(copy_package(PACKAGE, tmp_path / seed).parent)}
        lines = subprocess.run(
            [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.split()
        assert (lines[0], lines[1]) == (
            source.weights_source(tmp_path / seed / "kubeyolo"),
            source.results_source(tmp_path / seed / "kubeyolo"),
        )


def test_versions_are_those_of_the_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(source.weights_versions()) <= {
        "mindspore",
        "numpy",
        "opencv-python-headless",
        "pillow",
        "simplejpeg",
    }
    assert source.weights_versions().items() <= source.results_versions().items()
    assert re.match(r"\d+\.\d+", source.weights_versions()["numpy"])

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert source.results_versions() == {}


def is_empty(path: Path) -> bool:
    """Tell whether a module has no code, as the ``__init__.py`` of most folders."""
    return source.tree_text(path.read_bytes()) == source.tree_text("")


def lies_in(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}/") for place in places)


def training_imports(package: Path, *without: str) -> set[str]:
    """Return the files that kubeyolo/training imports, directly or not, also inside functions or by name."""
    found: set[str] = set()
    waiting = [path.relative_to(package).as_posix() for path in package.glob("training/*.py")]
    while waiting:
        name = waiting.pop()
        if name not in found and name not in without:
            found.add(name)
            waiting += imports_of(package, name)
    return found


def imports_of(package: Path, name: str) -> Iterator[str]:
    """Yield the files of the package that one file names in imports, or in strings as importlib takes them."""
    for node in ast.walk(ast.parse((package / name).read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            modules = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            modules = [node.value]
        else:
            continue
        for module in modules:
            if re.fullmatch(r"kubeyolo(\.\w+)*", module):
                parts = module.split(".")[1:]
                # Importing a module imports the packages that it lies in.
                candidates = ["/".join([*parts[:i], "__init__.py"]) for i in range(len(parts) + 1)]
                candidates.append(f"{'/'.join(parts)}.py")
                yield from (path for path in candidates if (package / path).is_file())
