"""Runs with made-up results, for the tests of the report."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from cnnjax.analysis import metrics
from cnnjax.analysis.read import read_run
from cnnjax.report.sections import headline
from cnnjax.study.metrics import MEASURES, METRICS
from cnnjax.study.plan import make_plan
from cnnjax.study.schema import from_config
from cnnjax.study.trials import Trial

CLASSES = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SKILL = {"baseline": 0.58, "medium": 0.66, "complex": 0.74}
GRID = {
    "models": ["baseline", "medium", "complex"],
    "seeds": [0, 1, 2, 3, 4],
    "select": "test_accuracy",
    "data": {"validation": 0.0},
    "train": {
        "optimizer": ["adam", "sgd"],
        "learning_rate": [0.001, 0.01],
        "momentum": 0.9,
        "batch_size": [32, 64],
        "epochs": [5, 10],
    },
}
STOPPED = {
    "models": ["baseline"],
    "seeds": [0, 1, 2],
    "select": "val_accuracy",
    "data": {"validation": 0.1},
    "train": {"optimizer": "sgd", "learning_rate": [0.01, 0.03], "epochs": 9},
}


def make_run(folder: Path, config: dict, *, diverge=(), stop=None, keep=None, examples=400) -> Path:
    """Writes a run with made-up results: `diverge` trials by id, only the first `keep` finished.

    `stop` holds the epoch after which a member stops early; where it is given, macro measures are in the history.
    """
    study = from_config(config)
    plan, rng = make_plan(study, numbered=True), np.random.default_rng(0)
    has_validation = study.data.has_validation
    (folder / "predictions").mkdir(parents=True)
    labels = rng.integers(0, len(CLASSES), examples).astype(np.int32)
    np.savez(folder / "predictions" / "labels.npz", labels=labels)
    images = rng.integers(0, 256, (examples // 2, 6, 6, 3)).astype(np.uint8)
    np.savez(folder / "predictions" / "images.npz", images=images)
    write = {"config": study.to_dict(), "environment": {"jax": "0.10.2", "devices": ["cpu"]}}
    counts = {"train": 50000, "validation": 0, "test": examples}
    write["data"] = {"name": "cifar10", "classes": CLASSES, "counts": counts}
    programs = [
        {"id": p.id, "parameters": 1000 + i, "forward_flops": 7 * i, "member_ids": [m.id for m in p.members]}
        for i, p in enumerate(plan.programs)
    ]
    write["plan"] = {"trials": len(plan.trials), "trained": plan.trained, "programs": programs, "repeats": plan.repeats}
    for name, content in write.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    rows, lines = [], []
    for member in (member for program in plan.programs for member in program.members):
        skill = _skill(member.trials[-1], rng)
        last = (stop or {}).get(member.id, member.epochs)
        for epoch in range(1, last + 1):
            lines.append({"member": member.id, "epoch": epoch} | _epoch(skill, epoch, has_validation))
            if stop is not None:
                lines[-1] |= {
                    f"val_{metric.name}": lines[-1]["val_accuracy"] - 0.01 for metric in METRICS if metric.of_confusion
                }
        for trial in member.trials:
            epochs = min(last, trial.epochs)
            row = trial.row() | {"member": member.id, "status": "ok", "epochs_run": epochs}
            row |= {
                "best_epoch": max(1, epochs - 2),
                "seconds": 10.0 + trial.seed,
                "images_per_second": 1e4 - trial.seed,
            }
            if epochs < trial.epochs:
                row["status"] = "early_stopped"
            if trial.id in diverge:
                rows.append(row | {"status": "diverged", "best_epoch": ""})
                continue
            logits = _logits(skill * (1 - 0.25 / trial.epochs), labels, rng)
            np.savez(folder / "predictions" / f"{trial.id}.npz", logits=logits)
            test = metrics.classification(logits, labels)
            row |= {f"test_{name}": value for name, value in test.items()}
            rows.append(row | _epoch(skill, epochs, has_validation))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows.sort(key=lambda row: row["trial"])
    columns = dict.fromkeys([*rows[0], *MEASURES])
    with (folder / "trials.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows[:keep])
    return folder


def _skill(trial: Trial, rng: np.random.Generator) -> float:
    too_fast = 0.2 if trial.static.optimizer == "adam" and trial.stages[0].traced.learning_rate > 0.005 else 0
    smaller = 0.01 * (trial.static.batch_size > 32)
    return SKILL.get(trial.static.model, 0.6) - too_fast - smaller + rng.normal(0, 0.012)


def _epoch(skill: float, epoch: int, has_validation: bool) -> dict[str, float]:
    accuracy = skill * (1 - 0.35 * 0.7**epoch)
    row = {"train_loss": 2.3 * (1 - accuracy), "train_accuracy": accuracy}
    if has_validation:
        row |= {"val_loss": 2.4 * (1 - accuracy) + 0.01 * epoch, "val_accuracy": 0.96 * accuracy}
    return row


def _logits(skill: float, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    logits = rng.normal(0, 1, (len(labels), len(CLASSES)))
    logits[np.arange(len(labels)), labels] += 4.2 * skill
    logits[np.arange(len(labels)), (labels + 2) % 10] += 0.8
    return (logits - logits.max(axis=1, keepdims=True)).astype(np.float16)


def leave_at_chance(folder: Path, trials: Iterable[str]) -> None:
    """Changes a run of ten classes so that these trials never left chance."""
    frame = pd.read_csv(folder / "trials.csv")
    at_chance = frame["trial"].isin([*trials])
    frame.loc[at_chance, ["val_accuracy", "test_accuracy", "test_loss"]] = 0.1, 0.1, np.log(10)
    frame.to_csv(folder / "trials.csv", index=False)
    members = frame.loc[at_chance, "member"].tolist()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [line | ({"train_accuracy": 0.1} if line["member"] in members else {}) for line in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def read_answer(folder: Path) -> str:
    """The answer of a run's report."""
    answer, details = headline.text(read_run(folder))
    return " ".join([answer, *(f"{label}: {said}" if label else said for label, said in details)])


def make_config(seeds, **more) -> dict:
    train = {"optimizer": "sgd", "learning_rate": 0.03, "epochs": 4} | more.pop("train", {})
    data = {"validation": 0.0} | more.pop("data", {})
    return {"models": ["baseline"], "seeds": seeds, "select": "train_loss", "train": train, "data": data} | more


def read_rows(path: Path) -> list[dict]:
    with path.open() as file:
        return list(csv.DictReader(file))


def read_floats(rows: list[dict], column: str) -> list[float]:
    return [float(row[column]) for row in rows]


def figure_names(folder: Path, kind: str) -> set[str]:
    return {path.stem for path in (folder / "report").glob(f"*.{kind}")}
