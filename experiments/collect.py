"""Collects runs of one study into its folder here: results, figures, and the comparison with what was published.

    python -m experiments.collect --output=experiments/fashion_regularisation --figures=models_best_accuracy \
        runs/dense runs/dense_sgd=SGD runs/dense_l2=L2

Writes trials.csv and metrics.jsonl of all runs (their trials named RUN/TRIAL), classes.csv (what each trial does with
each class of the test set), runs.json (what ran, and where), published.csv and the figures, drawn over all runs; prints
the comparison. A word after `=` tells a run's networks from those of the others in the figures. Runs that are not
finished are taken as far as they are.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cnnjax.analysis.columns import AXES
from cnnjax.analysis.metrics import class_report
from cnnjax.analysis.read import read_run
from cnnjax.analysis.run import Run
from cnnjax.report.sections import curves, measures, models, spread
from cnnjax.utils import cli
from cnnjax.utils.errors import RequestError, one_of
from experiments.published import as_text, compare


def merge(runs: Mapping[str, Run], words: Mapping[str, str]) -> Run:
    """Returns several runs as one, for figures.

    Args:
        runs: by name.
        words: by name, what the models of a run are called beside their own names.
    """
    trials, epochs, programs = [], [], []
    for name, run in runs.items():
        ids = {column: name + "/" + run.trials[column] for column in ("trial", "member")}
        models = (run.trials["model"] + " " + words.get(name, "")).str.strip()
        trials.append(run.trials.assign(run=name, **ids, model=models))
        epochs.append(run.epochs.assign(member=name + "/" + run.epochs["member"]))
        for program in run.plan["programs"]:
            programs.append(program | {"member_ids": [f"{name}/{member}" for member in program.get("member_ids", ())]})
    joined = pd.concat(trials, ignore_index=True)
    joined["configuration"] = joined.groupby(list(AXES), sort=False, dropna=False).ngroup()
    first = next(iter(runs.values()))
    plan = {"trials": sum(run.planned for run in runs.values()), "programs": programs}
    return Run(first.workdir, first.config, {}, first.data, plan, joined, pd.concat(epochs, ignore_index=True))


def results(runs: Mapping[str, Run]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the trials of all runs, with the run, and the epochs of all."""
    merged = merge(runs, {})
    return merged.trials.drop(columns="configuration"), merged.epochs


def classes(runs: Mapping[str, Run]) -> pd.DataFrame:
    """Returns precision, recall, F1 and support of each class, of every trial whose predictions are there."""
    rows = []
    for name, run in runs.items():
        for configuration, trials in run.ok.groupby("configuration"):
            for trial, tested in zip(trials["trial"], run.tested(int(configuration)), strict=False):
                report = class_report(*tested)
                by_class = zip(run.classes, report.precision, report.recall, report.f1, report.support, strict=True)
                rows += [(f"{name}/{trial}", *row) for row in by_class]
    return pd.DataFrame(rows, columns=["trial", "class", "precision", "recall", "f1", "support"])


def describe(name: str, run: Run) -> dict[str, Any]:
    """Returns what ran, and where."""
    environment = run.environment
    # Of folders outside, the names: where a machine has them is no matter.
    arguments = [
        re.sub(r"=/\S*/", "=", argument)
        for argument in environment["command"][1:]
        if not argument.startswith("--workdir")
    ]
    return {
        "command": " ".join(["python -m cnnjax.launch", *arguments, f"--workdir=runs/{name}"]),
        **{key: environment[key] for key in ("cpu_count", "devices", "versions")},
        "seconds": round(run.trials["seconds"].sum()),
        "data": {key: run.data[key] for key in ("name", "counts", "sha256")},
    }


def collect(output: Path, workdirs: Iterable[str], figures: Iterable[str]) -> str:
    """Collects runs into a folder.

    Args:
        output: the folder.
        workdirs: the runs' folders, as FOLDER or FOLDER=WORD.
        figures: names of the report's figures, drawn over all runs; RUN/NAME is one of a run's own report.

    Returns:
        The comparison with what was published, as text.

    Raises:
        RequestError: a folder is no run's, or there is no such figure of these runs.
    """
    split = [text.partition("=") for text in workdirs]
    runs = {Path(folder).name: read_run(Path(folder)) for folder, _, _ in split}
    words = {Path(folder).name: word for folder, _, word in split}
    merged = merge(runs, words)
    plots = {plot.name: plot.png for section in (models, measures, spread, curves) for plot in section.figures(merged)}
    for name, run in runs.items():
        plots |= {f"{name}/{png.stem}": png.read_bytes() for png in (run.workdir / "report").glob("*.png")}
    for name in figures:
        if name not in plots:
            raise RequestError("--figures", name, one_of(name, plots))
    output.mkdir(parents=True, exist_ok=True)
    (trials, epochs), by_class = results(runs), classes(runs)
    compared = compare(trials, epochs, by_class)
    trials.to_csv(output / "trials.csv", index=False, lineterminator="\n")
    epochs.to_json(output / "metrics.jsonl", orient="records", lines=True)
    by_class.to_csv(output / "classes.csv", index=False, lineterminator="\n", float_format="%.6g")
    compared.to_csv(output / "published.csv", index=False, lineterminator="\n", float_format="%.6g")
    (output / "runs.json").write_text(json.dumps({n: describe(n, run) for n, run in runs.items()}, indent=1) + "\n")
    for name in figures:
        (output / f"{Path(name).name}.png").write_bytes(plots[name])
    return as_text(compared)


def main(argv: list[str]) -> None:
    """Collects as the command line says."""
    parser = cli.ArgumentParser(prog="python -m experiments.collect", description=__doc__)
    parser.add_argument("workdirs", nargs="+", help="folders of runs; FOLDER=WORD names a run's networks in figures")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--figures", type=lambda text: text.split(","), default=(), help="NAME,NAME,...")
    options = parser.parse_args(argv[1:])
    print(collect(options.output, options.workdirs, options.figures))


if __name__ == "__main__":
    cli.run(main, list)
