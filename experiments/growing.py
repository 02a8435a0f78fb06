"""Grows the quickstart in five steps, and compares the result with the same study run from the start.

    python -m experiments.growing --output=experiments/growing.csv

Prints a row per step: the trials that were there, the new ones, the images that the step trained on, and the images of
what was new. Fails if they differ, if an old row of trials.csv changed, or if the grown study ends otherwise than the
one from the start: in other ids, or in an accuracy that differs by more than 1e-6.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
from absl import app, flags

OUTPUT = flags.DEFINE_string("output", None, "Where to write the table.")
ROOT = Path(__file__).parents[1]
STEPS = {
    "start": {"models": "baseline,medium", "seeds": "0,1", "train.learning_rate": "1e-3", "train.epochs": "2"},
    "a seed": {"seeds": "0,1,2"},
    "a learning rate": {"train.learning_rate": "1e-3,1e-2"},
    "a model": {"models": "baseline,medium,complex"},
    "longer training": {"train.epochs": "2,3"},
    "another axis": {"train.label_smoothing": "0,0.1"},
}


def main(_: list[str]) -> None:
    """Parses the command line, runs the studies, and prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        table, grown = _grow(Path(folder) / "grown")
        settings = {key: value for step in STEPS.values() for key, value in step.items()}
        whole = _launch(Path(folder) / "whole", settings)
    print(table.to_string(index=False))
    if OUTPUT.value:
        table.to_csv(OUTPUT.value, index=False)
    accuracies = [column for column in whole if column.endswith("accuracy")]
    assert grown["trial"].tolist() == whole["trial"].tolist()
    difference = (grown[accuracies] - whole[accuracies]).abs().max().max()
    losses = [column for column in whole if column.endswith("loss")]
    print(
        f"{len(whole)} trials, grown and from the start: the same ids in the same order; accuracies differ by at most"
    )
    print(f"{difference:.1e}, losses by {(grown[losses] - whole[losses]).abs().max().max():.1e}")
    assert difference <= 1e-6


def _grow(workdir: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns a row per step, and the trials after the last one."""
    settings: dict[str, str] = {}
    rows, before = [], pd.DataFrame(columns=["trial"])
    for step, changes in STEPS.items():
        settings |= changes
        epochs = _epochs(workdir)
        trials = _launch(workdir, settings)
        kept = trials[trials["trial"].isin(before["trial"])].reset_index(drop=True)
        if len(before):
            in_order = before.set_index("trial").loc[kept["trial"]].reset_index()
            pd.testing.assert_frame_equal(kept, in_order[kept.columns])
        images = json.loads((workdir / "data.json").read_text())["counts"]["train"]
        new = _new_epochs(trials, before) * images
        trained = (_epochs(workdir) - epochs) * images
        rows.append([step, len(kept), len(trials) - len(kept), trained, new])
        assert trained == new, rows[-1]
        before = trials
    columns = ["step", "trials kept", "new trials", "images trained on", "images of what is new"]
    return pd.DataFrame(rows, columns=columns), before


def _new_epochs(trials: pd.DataFrame, before: pd.DataFrame) -> int:
    """Returns the epochs of all members that an earlier step had not asked for."""
    asked = trials.groupby("member")["epochs"].max()
    there = before.groupby("member")["epochs"].max() if len(before) else {}
    return sum(int(epochs) - int(there.get(member, 0)) for member, epochs in asked.items())


def _epochs(workdir: Path) -> int:
    """Returns the epochs that all members have trained."""
    return sum('"member"' in line for file in workdir.glob("programs/*/metrics.jsonl") for line in file.open())


def _launch(workdir: Path, settings: dict[str, str]) -> pd.DataFrame:
    overrides = [f"--config.{key}={value}" for key, value in settings.items()]
    command = [sys.executable, "-m", "cnnjax.launch", f"--config={ROOT}/configs/quickstart.py", f"--workdir={workdir}"]
    subprocess.run([*command, *overrides], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return pd.read_csv(workdir / "trials.csv")


if __name__ == "__main__":
    app.run(main)
