"""The cost of training: totals that count a member once, and the Pareto front."""

import csv
import json

import numpy as np
import pytest

from cnnjax.analysis.cost import by_configuration, pareto_front, study_cost
from cnnjax.analysis.read import read_run
from cnnjax.report.sections import cost
from tests.support.made_up_run import GRID, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A grid whose shorter trials are read off longer ones, and whose seconds differ."""
    train = {**GRID["train"], "optimizer": "sgd", "batch_size": 32, "learning_rate": 0.01}
    folder = make_run(tmp_path_factory.mktemp("cost") / "run", {**GRID, "train": train, "seeds": [0, 1]})
    rows = list(csv.DictReader((folder / "trials.csv").open()))
    for row in rows:
        row["seconds"] = int(row["epochs"]) * {"baseline": 1, "medium": 3, "complex": 2}[row["model"]]
    with (folder / "trials.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return read_run(folder)


def test_a_member_counts_once_whatever_is_read_off_it(run):
    lines = [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text().splitlines()]
    assert len(run.trials) == 12 and len(lines) == 3 * 2 * 10
    assert study_cost(run) == (2 * 10 * (1 + 3 + 2), len(lines) * 50000)


def test_the_front_of_configurations(run):
    found = by_configuration(run)
    named = {run.tell_apart(i): is_front for i, is_front in found["is_front"].items()}
    assert named["baseline, epochs 5"] and named["complex, epochs 10"]
    assert not named["medium, epochs 10"]  # complex is faster and more accurate
    assert found["images"].tolist() == [50000 * epochs for epochs in run.configurations["epochs"]]
    (table,) = cost.tables(run)
    assert len(table.frame) == found["is_front"].sum()
    assert table.frame["seconds"].is_monotonic_increasing and table.frame["test_accuracy"].is_monotonic_increasing


def test_a_front_is_what_all_pairs_say():
    rng = np.random.default_rng(0)
    costs, values = rng.integers(0, 12, 60).astype(float), rng.integers(0, 12, 60).astype(float)
    expected = [
        not any((c <= cost and v >= value) and (c, v) != (cost, value) for c, v in zip(costs, values, strict=True))
        for cost, value in zip(costs, values, strict=True)
    ]
    assert pareto_front(costs, values).tolist() == expected and 1 < sum(expected) < 20
