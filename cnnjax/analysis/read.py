"""Reads and checks the files of a run."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from cnnjax.analysis.columns import AXES, axes_of
from cnnjax.analysis.run import Run
from cnnjax.runs.integrity import Damaged, read_json, read_undamaged
from cnnjax.runs.run_dir import RunFolder
from cnnjax.runs.trials_csv import read_shown, read_table, record_files
from cnnjax.study.hparams import COLUMNS, HPARAMS
from cnnjax.study.metrics import MEASURES, NAMES, SPLITS, columns_of, of_epochs
from cnnjax.study.renamed import modern_config
from cnnjax.study.schema import Study, from_run, selectable
from cnnjax.utils.errors import RequestError, one_of

# Columns that older runs lack.
_LATER: dict[str, Any] = {"later_stages": None}
_NEEDED = (*(f"{split}_{name}" for split in SPLITS for name in ("loss", "accuracy")), "test_f1")
_COSTS = ("epochs_run", "best_epoch", "seconds", "images_per_second")
_COLUMNS = ("trial", "member", *AXES, "seed", "status", *MEASURES, *_COSTS)


def read_run(workdir: Path, select: str | None = None) -> Run:
    """Reads the folder of a run, finished or not.

    Args:
        workdir: the folder.
        select: the measure to rank by; the default is the study's own.

    Raises:
        RequestError: the folder is missing or is not that of a run, a file is damaged, or the run has no such measure.
    """
    RunFolder(workdir).check_links(without=["checkpoints"])
    if not (workdir / "config.json").is_file():
        raise RequestError("workdir", str(workdir), "must be a run's folder (with config.json)")
    read = {n: _json(workdir / f"{n}.json") for n in ("config", "environment", "data", "plan")}
    for name, key in (("config", "select"), ("data", "classes"), ("plan", "trials")):
        if key not in read[name]:
            raise RequestError("workdir", str(workdir), f"{name}.json has no {key!r}; use a run's folder")
    try:
        study = from_run(read["config"])
        read["config"] = modern_config(read["config"])
    except RequestError as error:
        raise RequestError("workdir", str(workdir), f"its config.json is not a valid study ({error})") from error
    planned = None
    if select is not None:
        planned, read["config"]["select"] = read["config"]["select"], _checked_select(read["config"], select)
    trials, epochs = _trials(workdir, study), _epochs(workdir, of_epochs(columns_of(study.metrics)))
    _check_complete(workdir / "metrics.jsonl", trials, epochs)
    run = Run(workdir, **read, trials=trials, epochs=epochs, planned_select=planned)
    if select is not None and len(trials) and trials[run.select].isna().all():
        recorded = [name for name in selectable(columns_of(study.metrics)) if not trials[name].isna().all()]
        raise RequestError("--select", select, f"the run did not record it; use one of {', '.join(recorded)}")
    return run


def _checked_select(config: dict[str, Any], select: str) -> str:
    try:
        return from_run({**config, "select": select}).select
    except RequestError as error:
        names = selectable(columns_of(config.get("metrics", NAMES)))
        what = str(error).partition(": ")[2] if select in names else one_of(select, names)
        raise RequestError("--select", select, what) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise RequestError("workdir", str(path.parent), f"it has no {path.name}") from None


def _trials(workdir: Path, study: Study) -> pd.DataFrame:
    """Reads one row per trial; none if the study has just begun, and the file is missing or empty."""
    path = workdir / "trials.csv"
    try:
        trials = read_table(workdir)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        trials = pd.DataFrame(columns=list(_COLUMNS))
    measures = columns_of(study.metrics)
    # A hyperparameter that an older version did not have had its default; an axis that was none had one value.
    later = _LATER | dict.fromkeys(name for name in measures if name not in _NEEDED)
    later |= {h.column: h.values(study)[0] for h in HPARAMS if h.column in COLUMNS}
    later |= {"stream_split": study.streams.split[0]}
    trials = trials.assign(**{column: value for column, value in later.items() if column not in trials})
    missing = [column for column in _COLUMNS if column not in trials]
    if missing:
        raise RequestError("workdir", str(path), f"it has no column {missing[0]!r}")
    for trial in trials["trial"]:
        if not re.fullmatch(r"t[0-9a-f]+", str(trial)):  # it is part of file names
            raise RequestError("workdir", str(path), f"it has a trial named {trial!r}; use names such as t01c9")
    measured = _floats(path, trials[[*measures, *_COSTS]])
    configuration = trials.groupby(axes_of(trials), sort=False, dropna=False).ngroup()
    return trials.assign(**dict(measured.items()), configuration=configuration)


def _epochs(workdir: Path, measures: tuple[str, ...]) -> pd.DataFrame:
    """Reads one row per trained member and epoch; missing and non-finite values are NaN."""
    columns = ["member", "epoch", *measures]
    path = workdir / "metrics.jsonl"
    files = record_files(workdir, path.name)
    every = (line for file in ([path] if files is None else files) for line in read_undamaged(file))
    shown = read_shown(workdir)
    lines = [line for line in every if "member" in line and shown.has_line(line)]
    places = {member: place for place, member in enumerate(shown.epochs)}
    lines.sort(key=lambda line: places.get(line["member"], 0))  # as if the study had not grown
    epochs = pd.DataFrame(lines, columns=columns)
    return epochs.assign(**dict(_floats(path, epochs[list(measures)]).items()))


def _floats(path: Path, values: pd.DataFrame) -> pd.DataFrame:
    try:
        return values.astype(float)
    except (ValueError, TypeError) as error:
        raise Damaged(path, str(error)) from error


def _check_complete(path: Path, trials: pd.DataFrame, epochs: pd.DataFrame) -> None:
    """Raises Damaged if epochs of a finished trial are missing, which would change means over seeds."""
    there = set(zip(epochs["member"].tolist(), epochs["epoch"].tolist(), strict=True))
    for row in trials.dropna(subset=["epochs_run"]).itertuples():
        lost = (epoch for epoch in range(1, int(row.epochs_run) + 1) if (row.member, epoch) not in there)
        if (first := next(lost, None)) is not None:
            raise Damaged(path, f"it lacks epoch {first} of {row.member}")
