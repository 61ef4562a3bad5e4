"""benchmarks/lookalike.py: its rules are valid, finished runs are not repeated, and the table has medians."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import lookalike
from benchmarks.lookalike import RULES, Plan, Run, finished, ordered, table
from kubeyolo.config.load import load_config


def test_every_rule_is_a_valid_configuration() -> None:
    plan = Plan.read(RULES)
    assert plan.config.is_file() and plan.seeds == (0, 1, 2)
    assert next(iter(plan.rules.items())) == ("baseline", ())
    assert load_config(None, plan.config, list(plan.rules["cls-8"])).train.cls_gain == 4


def test_a_rule_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(
        RULES.read_text().replace("../", f"{RULES.parent}/../").replace("train.cls_gain=1]", "train.cls=1]")
    )
    with pytest.raises(SystemExit, match=r"rule cls-2: .*train\.cls"):
        Plan.read(file)


def test_all_rules_run_with_a_seed_before_the_next_seed() -> None:
    runs = list(ordered(["a", "b"], {"x": (), "y": ()}, [0, 1]))
    assert [run.seed for run in runs] == [0] * 4 + [1] * 4 and len(set(runs)) == 8


def test_finished_runs_are_not_repeated_and_the_table_has_medians(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Run] = []

    def measured(plan: Plan, run: Run, sets: Any, out: Path) -> dict[str, float]:
        done.append(run)
        if run.rule == "cls-4":
            raise subprocess.CalledProcessError(
                1, ["python", "-c", "", "train", "data"], stderr="train.lr is too large"
            )
        return {"AP": 0.1 * run.seed + 0.05 * len(sets), "AP50": 0.5, "AR100": 0.7}

    monkeypatch.setattr(lookalike, "measured", measured)
    plan, seeds = Plan.read(RULES), (1, 2, 4)
    rules = {name: plan.rules[name] for name in ("baseline", "cls-2", "cls-4")}
    for _ in range(2):
        states = [finished(plan, run, rules[run.rule], tmp_path) for run in ordered(["bccd"], rules, seeds)]
        assert states == [True, True, False] * 3
    # Failed runs are tried again.
    assert len(done) == 9 + 3
    lines = table(tmp_path, ["bccd"], rules, seeds)
    assert [line.split("|")[1:6] for line in lines if line.startswith(("| base", "| cls"))] == [
        [" baseline ", " 3 ", " 0.200 ", " 0.500 ", " 0.700 "],
        [" cls-2 ", " 3 ", " 0.250 (+5.0) ", " 0.500 ", " 0.700 "],
    ]
    # With other settings the run is done again, and its former result is not in the table.
    changed = {**rules, "cls-2": ("train.cls_gain=3",)}
    assert not any("cls-2" in line for line in table(tmp_path, ["bccd"], changed, seeds))
    assert finished(plan, Run("bccd", "cls-2", 1), changed["cls-2"], tmp_path) and len(done) == 13
