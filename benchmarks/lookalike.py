"""Compare settings for small data sets whose classes look alike: medians of AP, AP50 and AR over seeds.

    python -m benchmarks.lookalike OUT [--rules FILE] [--data NAME ...] [--rule NAME ...] [--seeds 0 1 2] [--table]

Every rule in ``benchmarks/lookalike.yaml`` is a list of settings. For each data set, rule and seed the commands
``pretrain``, ``train`` and ``evaluate`` of kubeyolo run one after another, with all results in the folder OUT. A run
whose result is in OUT, with the same settings, is not repeated, and an interrupted run continues from its newest
checkpoint. Rules with the same settings of pretraining share their backbones. All rules run with the first seed before
any rule runs with the second, so that the table is useful early; ``--table`` only prints it. If a rule fails, its last
lines are printed, and the others continue.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kubeyolo.config.load import load_config
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.errors import InputError

PROGRAM = "import sys; from kubeyolo.cli.app import main; sys.exit(main())"
RULES = Path(__file__).with_suffix(".yaml")
METRICS = {"AP": "AP", "AP50": "AP50", "AR": "AR100"}
"""Heading of a column of the table, and the metric of the evaluation."""


@dataclass(frozen=True)
class Plan:
    """What a file of rules describes.

    Attributes:
        config: File of the settings that all rules share.
        seeds: Seeds of the trainings.
        data: By name the folder of a data set, or the kind of a generated data set.
        rules: Settings by name of the rule, as ``key=value``; the first rule is the one that others are compared with.
    """

    config: Path
    seeds: tuple[int, ...]
    data: Mapping[str, Mapping[str, str]]
    rules: Mapping[str, tuple[str, ...]]

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read a file of rules; each rule must be a valid configuration."""
        document = yaml.safe_load(path.read_text())
        config = path.parent / document["config"]
        rules = {name: tuple(sets) for name, sets in document["rules"].items()}
        for name, sets in rules.items():
            try:
                load_config(None, config, list(sets))
            except InputError as error:
                raise SystemExit(f"{path}, rule {name}: {error}") from error
        data = {
            name: {key: str(path.parent / value) if key == "folder" else value for key, value in given.items()}
            for name, given in document["data"].items()
        }
        return cls(config, tuple(document["seeds"]), data, rules)


@dataclass(frozen=True)
class Run:
    """A training of a rule on a data set with a seed."""

    data: str
    rule: str
    seed: int

    def file(self, out: Path) -> Path:
        """Return the file of the result."""
        return out / "results" / self.data / self.rule / f"seed-{self.seed}.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rules", type=Path, default=RULES, metavar="FILE")
    parser.add_argument("--data", nargs="+", metavar="NAME", help="only these data sets")
    parser.add_argument("--rule", nargs="+", metavar="NAME", help="only these rules")
    parser.add_argument("--seeds", nargs="+", type=int, help="in place of the seeds in the file")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of all rules")
    parser.add_argument("--table", action="store_true", help="print the table of finished runs and end")
    options = parser.parse_args()
    plan = Plan.read(options.rules)
    for asked, known in ((options.data, plan.data), (options.rule, plan.rules)):
        if unknown := set(asked or ()) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    names = options.data or list(plan.data)
    rules = {name: (*options.set, *sets) for name, sets in plan.rules.items() if name in (options.rule or plan.rules)}
    seeds = options.seeds or plan.seeds
    failed = 0
    if not options.table:
        for run in ordered(names, rules, seeds):
            failed += not finished(plan, run, rules[run.rule], options.out)
    print("\n".join(table(options.out, names, rules, seeds)))
    return int(failed > 0)


def ordered(names: Sequence[str], rules: Mapping[str, Any], seeds: Sequence[int]) -> Iterator[Run]:
    """Yield all runs: every rule with the first seed first."""
    for seed in seeds:
        for data in names:
            for rule in rules:
                yield Run(data, rule, seed)


def finished(plan: Plan, run: Run, sets: Sequence[str], out: Path) -> bool:
    """Do a run unless its result is stored; return whether it has succeeded."""
    file, settings = run.file(out), {"config": plan.config.read_text(), "settings": list(sets)}
    label = f"{run.data}, {run.rule}, seed {run.seed}"
    if (stored := read_result(file)) and {key: stored[key] for key in settings} == settings:
        return True
    started = time.monotonic()
    try:
        metrics = measured(plan, run, sets, out)
    except subprocess.CalledProcessError as error:
        print(f"{label}: {' '.join(error.cmd[3:5])} ended with exit code {error.returncode}", flush=True)
        print("\n".join(f"    {line}" for line in error.stderr.splitlines()[-5:]), flush=True)
        return False
    seconds = round(time.monotonic() - started, 1)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps({**settings, "seconds": seconds, "metrics": metrics}, indent=2))
    os.replace(part, file)
    figures = ", ".join(f"{title} {text(metrics.get(key))}" for title, key in METRICS.items())
    print(f"{label}: {figures} ({seconds:.0f} s)", flush=True)
    return True


def measured(plan: Plan, run: Run, sets: Sequence[str], out: Path) -> dict[str, float | None]:
    """Pretrain, train and evaluate; return the COCO metrics on the split val."""
    store, source = out / "store", plan.data[run.data]
    folder = Path(source["folder"]) if "folder" in source else out / "data" / run.data
    if "sample" in source:
        generate_sample_dataset(folder, kind=source["sample"])
    common = ["--config", str(plan.config), "--store", str(store)]
    common += [word for pair in (*sets, f"train.seed={run.seed}") for word in ("--set", pair)]
    dataset = kubeyolo("validate", str(folder), "--store", str(store))["outputs"]["dataset"]
    backbone = kubeyolo("pretrain", dataset, *common)["outputs"]["backbone"]
    start = ["--backbone", backbone] if backbone else []
    bundle = kubeyolo("train", dataset, *start, *common)["outputs"]["bundle"]
    metrics = kubeyolo("evaluate", bundle, dataset, "--store", str(store))["metrics"]
    return {key: value for key, value in metrics.items() if value is None or isinstance(value, int | float)}


def kubeyolo(*words: str) -> dict[str, Any]:
    """Run a command and return its record."""
    command = [sys.executable, "-c", PROGRAM, *words, "--json"]
    done = subprocess.run(command, check=True, text=True, capture_output=True)
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def read_result(file: Path) -> dict[str, Any] | None:
    """Return the result of a run; None if it is not finished."""
    return json.loads(file.read_text()) if file.exists() else None


def table(out: Path, names: Sequence[str], rules: Mapping[str, Any], seeds: Sequence[int]) -> list[str]:
    """Return the medians of each rule and data set, with differences to the first rule, as lines of Markdown."""
    lines: list[str] = []
    for data in names:
        lines += [f"## {data}", "", f"| rule | seeds | {' | '.join(METRICS)} | minutes |"]
        lines += [f"| --- | ---: |{' ---: |' * len(METRICS)} ---: |"]
        first: dict[str, float] = {}
        for rule in rules:
            stored = [read_result(Run(data, rule, seed).file(out)) for seed in seeds]
            results = [each for each in stored if each and each["settings"] == list(rules[rule])]
            if not results:
                continue
            medians = {title: median(each["metrics"].get(key) for each in results) for title, key in METRICS.items()}
            first = first or medians
            cells = [text(value) + difference(value, first[title]) for title, value in medians.items()]
            minutes = statistics.median(each["seconds"] for each in results) / 60
            lines.append(f"| {rule} | {len(results)} | {' | '.join(cells)} | {minutes:.1f} |")
        lines.append("")
    return lines


def median(values: Iterator[float | None]) -> float:
    """Return the median; a metric that is missing counts as 0."""
    return statistics.median(value or 0.0 for value in values)


def difference(value: float, first: float) -> str:
    """Return the difference to the first rule in points, empty if there is none."""
    return f" ({100 * (value - first):+.1f})" if value != first else ""


def text(value: float | None) -> str:
    """Return a metric with three decimals."""
    return f"{value or 0.0:.3f}"


if __name__ == "__main__":
    sys.exit(main())
