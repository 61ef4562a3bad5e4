"""The page docs/layout.md names the files, terms and imports of the code as they are."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "kubeyolo"
TEXT = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")
SUFFIXES = (".py", ".yaml", ".toml", ".md", ".Dockerfile")
ANY_STEP = ROOT / "components" / "train"


def section(title: str, text: str = TEXT) -> str:
    """Return the text below a heading, up to the next heading of its level or a higher one."""
    marks = title.partition(" ")[0]
    return re.split(rf"^#{{1,{len(marks)}}} ", text.partition(f"\n{title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of the tables in a text, row by row, without the rows of dashes."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def inline(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def rooms() -> Iterator[tuple[list[Path], str]]:
    """Yield the folders that a part of the page is about, and the part."""
    for part in re.split(r"^#{2,3} ", TEXT, flags=re.MULTILINE):
        heading, _, body = part.partition("\n")
        yield [ROOT / name for name in inline(heading)], body


def is_path(token: str) -> bool:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", token) or token.startswith(".."):
        return False
    return "/" in token or (token.endswith(SUFFIXES) and token not in SUFFIXES)


def test_files_and_folders_exist() -> None:
    checked = 0
    for folders, body in rooms():
        blocks = " ".join(re.findall(r"```\n(.*?)```", body, re.DOTALL))
        for token in [*inline(body), *re.findall(r"[\w/]+\.py\b", blocks)]:
            if is_path(token):
                checked += 1
                assert any((base / token).exists() for base in (*folders, ROOT, LIBRARY, ANY_STEP)), token
    assert checked > 300


def test_every_module_is_named_in_the_table_of_its_room() -> None:
    named: set[Path] = set()
    for folders, body in rooms():
        for row in rows(body):
            # A folder in the first column is described as a whole, with its modules.
            tokens = inline(" ".join(row) if "/`" in row[0] else row[0])
            named |= {(base / token).resolve() for base in (*folders, ROOT) for token in tokens}
    modules = {path.resolve() for path in LIBRARY.rglob("*.py") if path.name != "__init__.py"}
    assert sorted(path.relative_to(ROOT).as_posix() for path in modules - named) == []


def names_in(path: Path) -> set[str]:
    """Return the classes, functions, methods and variables that a module defines."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def test_terms_and_digests_are_defined_where_the_glossary_says() -> None:
    terms = rows(section("## Glossary").partition("\n### ")[0])[1:]
    digests, others = rows(section("### Digests"))[1:], rows(section("### Other identifiers"))[1:]
    checks = rows(section("### Is the work done already?"))[1:]
    assert len(terms) > 60 and len(digests) > 15 and len([*digests, *others]) > 20 and len(checks) > 8
    for term, _, file, names in [*terms, *(row[:4] for row in [*digests, *others]), *checks]:
        [path] = inline(file)
        base = LIBRARY if (LIBRARY / path).exists() else ROOT
        assert inline(names) and {*inline(names)} <= names_in(base / path), term
    for table in (terms, [*digests, *others], checks):
        heads = [row[0] for row in table]
        assert len({*heads}) == len(heads)
    in_order = [row[0].replace("ç", "c") for row in terms]
    assert [(a, b) for a, b in pairwise(in_order) if a > b] == []


def test_the_layers_are_those_of_the_import_linter() -> None:
    rules = configparser.ConfigParser()
    rules.read(ROOT / ".importlinter")
    layers = rules["importlinter:contract:layers"]["layers"].strip()
    block = re.findall(r"```\n(.*?)```", section("## Who imports whom"), re.DOTALL)[0]
    assert block.splitlines() == re.sub(r"kubeyolo\.|[()]", "", layers).splitlines()
    without = {path.stem for path in LIBRARY.glob("*.py")} - {"__init__"} - {*re.findall(r"\w+", block)}
    assert without == {"events", "file_kinds", "pointers", "source"}, "modules outside the diagram"


def module_file(name: str) -> Path | None:
    path = ROOT / Path(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def targets(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    inner = [f"{node.module}.{alias.name}" for alias in node.names]
    return [name if module_file(name) else str(node.module) for name in inner]


def imports(tree: ast.AST, inside: bool) -> Iterator[str]:
    """Yield the modules that are imported inside functions, or else when a module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from () if inside else targets(node)
        elif isinstance(node, ast.FunctionDef):
            found = (each for each in ast.walk(node) if isinstance(each, ast.Import | ast.ImportFrom))
            yield from (name for each in found for name in targets(each)) if inside else ()
        else:
            yield from imports(node, inside)


@cache
def imported(name: str) -> frozenset[str]:
    path = module_file(name)
    return frozenset(imports(ast.parse(path.read_text(encoding="utf-8")), inside=False)) if path else frozenset()


def packages(*names: str) -> set[str]:
    """Return the packages that are imported with modules, through any number of other modules."""
    seen: set[str] = set()
    waiting = [*names]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += imported(name)
    return {name.partition(".")[0] for name in seen}


def test_imports_inside_functions_keep_out_the_packages_of_the_table() -> None:
    table = {row[0]: {*inline(row[1])} for row in rows(section("### Imports inside functions"))[1:]}
    kept_out: dict[str, set[str]] = {package: set() for package in table}
    for path in LIBRARY.rglob("*.py"):
        inner = [*imports(ast.parse(path.read_text(encoding="utf-8")), inside=True)]
        if inner:
            own = packages(".".join(path.relative_to(ROOT).with_suffix("").parts))
            for package in packages(*inner) - own:
                kept_out.get(package, set()).add(path.relative_to(LIBRARY).as_posix())
    assert kept_out == table
