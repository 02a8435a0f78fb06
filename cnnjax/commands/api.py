"""What Python code and notebooks call: run a study, open a run, compare two runs."""

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnjax.analysis import compare
from cnnjax.analysis.columns import MAIN_AXES
from cnnjax.analysis.read import read_run
from cnnjax.executors.base import Engine
from cnnjax.runs import remote
from cnnjax.study.overrides import Config, config_name, read_study
from cnnjax.study.rules import integer, number
from cnnjax.study.schema import Study
from cnnjax.utils.errors import RequestError
from cnnjax.utils.progress import Progress
from cnnjax.utils.tree import finite

if TYPE_CHECKING:
    import pandas as pd

    from cnnjax.training.load import Trained


class Statement(str):
    """A text that prints as it reads, with the numbers behind it.

    Attributes:
        fields: the numbers by name; unknown ones are None.
    """

    fields: dict[str, Any]

    def __new__(cls, text: str, fields: dict[str, Any] | None = None) -> "Statement":
        """Adds the numbers to the text."""
        statement = super().__new__(cls, text)
        statement.fields = fields or {}
        return statement

    def __repr__(self) -> str:
        return str(self)


class StudyRun:
    """A run, finished or not, as its files were when it was opened.

    Args:
        place: the run's folder, or its URL.

    Attributes:
        place: as given.
        workdir: the folder; for a URL the local copy.

    Raises:
        RequestError: it is not the folder of a run, or a file cannot be read.
    """

    def __init__(self, place: str | Path):
        self.place = place
        self.workdir = remote.copied(place, without=remote.LARGE)
        self._run = read_run(self.workdir)

    @property
    def trials(self) -> "pd.DataFrame":
        """One row per finished trial: the columns of trials.csv, and `configuration`, which numbers configurations."""
        return self._run.trials.copy()

    @property
    def metrics(self) -> "pd.DataFrame":
        """One row per trained member and epoch. Merge it with `trials` on the column `member`."""
        return self._run.epochs.copy()

    @property
    def best(self) -> dict[str, Any] | None:
        """The best configuration by the study's `select`, or None if no trial has a value.

        It has the configuration's hyperparameters, `n` trials, the means of their measures, and `trials`, their ids.
        """
        run = self._run
        if run.best is None:
            return None
        row = run.configurations.loc[run.best]
        axes = [axis for axis in run.axes if axis in MAIN_AXES or axis in run.varying]
        measures = [measure for measure in run.measures if row[measure] == row[measure]]  # not NaN
        trials = run.ok.loc[run.ok["configuration"] == run.best, "trial"].tolist()
        return {**finite(row[[*axes, "n", *measures]].to_dict()), "trials": trials}

    def verdict(self) -> Statement:
        """Returns what the evidence supports: the sentences at the head of the report.

        Its `fields` compare the best configuration with its runner-up: `verdict` (`better`, `worse`, `equal` or
        `undecided`), `measure`, `difference` with its 95 % interval `low` to `high` and `p`, `seeds`, `more_seeds` that
        would decide it, and `undecided`, the number of configurations with an undecided difference from the best.
        There are none if nothing is compared.
        """
        from cnnjax.report.sections import headline  # imports plots

        answer, details = headline.text(self._run)
        paragraphs = [answer, *(f"{label}: {text}" if label else text for label, text in details)]
        return Statement("\n\n".join(paragraphs), finite(headline.numbers(self._run)))

    def report(self, select: str | None = None) -> Path:
        """Builds the report, and returns the path of its page.

        Args:
            select: the measure to rank by; the default is the study's own.
        """
        from cnnjax.report import build_report

        page = build_report(self.workdir, select)
        if remote.is_url(self.place):
            remote.upload(self.place, "report")
        return page

    def load(self, trial: str, *, trust_code: bool = False) -> "Trained":
        """Returns the network of a trial with its weights; see `cnnjax.load_trial`."""
        from cnnjax.training.load import load_trial

        return load_trial(remote.copied(self.place), trial, trust_code=trust_code)

    def __repr__(self) -> str:
        return f"StudyRun({str(self.place)!r}, {len(self._run.trials)} of {self._run.planned} trials)"

    def _repr_html_(self) -> str:
        from cnnjax.report.notebook import summary_html

        page, table = self.workdir / "report" / "index.html", self.workdir / "trials.csv"
        is_built = page.exists() and table.exists() and page.stat().st_mtime >= table.stat().st_mtime
        return summary_html(self._run, str(page) if is_built else "not built yet; call .report()")


def run(
    config: Config,
    workdir: str | Path | None = None,
    progress: bool = True,
    *,
    overwrite: bool = False,
    confirm: int | None = None,
    until: str | None = None,
    max_seeds: int | None = None,
    margin: float | None = None,
    profile: bool = False,
    engine: Engine | None = None,
) -> StudyRun:
    """Trains every trial of a study that has no result yet in the run's folder, as `python -m cnnjax.launch` does.

    The same call again resumes an interrupted run, or finds it finished. With more seeds or other values of an axis in
    the config and the same `workdir`, the run grows: only new trials are trained. An interruption (Ctrl-C,
    or a notebook's stop button) raises KeyboardInterrupt; everything up to the last checkpoint is on disk.

    Args:
        config: the study: a dict, a ConfigDict, or the path of a config file, also with an argument, as in
            `configs/grid.py:smoke`.
        workdir: the run's folder, or its URL. By default `runs/grid` for `configs/grid.py`, as on the command line. For
            a dict or a ConfigDict, a folder in `runs` with the name of the data and a hash of the study: the same study
            finds its run again, another study gets another folder.
        progress: whether to show what runs: a line that changes in a terminal or a notebook, lines on stderr elsewhere.
        overwrite: delete the run in the folder first.
        until: `"decided"` adds seeds to the configurations that may still be the best, until one is decided.
        max_seeds: with `until`, the largest number of seeds of a configuration; None is 20.
        margin: with `until`, a difference that does not matter, in the unit of the study's `select`.
        confirm: then train the winner and two runners-up on this number of fresh seeds.
        profile: write a trace of each program's second epoch into the folder `profile` of the run.
        engine: trains the programs on workers, see `cnnjax.executors.make_engine`; None trains in this process.

    Returns:
        The run.

    Raises:
        RequestError: the config, the folder or the data is invalid; one line names the key, the value and what is
            allowed.
    """
    study = read_study(config)
    if confirm is not None and (isinstance(confirm, bool) or not isinstance(confirm, int) or confirm < 2):
        raise RequestError("confirm", confirm, "must be a whole number >= 2, or None")
    if until not in (None, "decided"):
        raise RequestError("until", until, "must be 'decided', or None")
    for key, value, rule in (("max_seeds", max_seeds, integer(1)), ("margin", margin, number(0, exclusive=True))):
        if value is not None and not rule.accepts(value):
            raise RequestError(key, value, rule.allowed)
        if value is not None and until is None:
            raise RequestError(key, value, "it needs until='decided'")
    place = _default_folder(config, study) if workdir is None else workdir
    # They import jax: an invalid request has failed before.
    from cnnjax.commands import launch
    from cnnjax.training.devices import pinned

    with pinned(), Progress(is_shown=progress) as shown:
        launch.launch(
            study,
            place,
            progress=shown,
            overwrite=overwrite,
            profile=profile,
            confirm=confirm,
            until=until,
            max_seeds=max_seeds,
            margin=margin,
            report=False,
            engine=engine,
        )
    return open_run(place)


def _default_folder(config: Config, study: Study) -> Path:
    if isinstance(config, str | Path):
        return Path("runs") / config_name(str(config))
    digest = hashlib.sha256(json.dumps(study.to_dict(), sort_keys=True).encode()).hexdigest()
    name = re.sub(r"[^\w.-]", "_", Path(study.data.path or study.data.name).stem)
    return Path("runs") / f"{name}-{digest[:8]}"


def open_run(workdir: str | Path) -> StudyRun:
    """Opens a run, finished or not, without training.

    Args:
        workdir: the run's folder, or its URL.

    Raises:
        RequestError: it is not the folder of a run, or a file cannot be read.
    """
    return StudyRun(workdir)


def compare_runs(
    a: StudyRun | str | Path, b: StudyRun | str | Path, measure: str | None = None, margin: float | None = None
) -> Statement:
    """Compares the best configurations of two runs, as `python -m cnnjax.compare` does.

    Args:
        a: a run, or its folder or URL, which may end in `:key=value,...` to select trials by columns of trials.csv.
        b: the other one.
        measure: a column of trials.csv; the default is the `select` of both runs, or test_accuracy if they differ.
        margin: the largest difference that does not matter, in the unit of the measure.

    Returns:
        The text of the command. Its `fields` are those of `--format=json`.

    Raises:
        RequestError: a run cannot be read, or the runs cannot be compared.
    """
    one, other = (compare.read_side(str(side.place if isinstance(side, StudyRun) else side)) for side in (a, b))
    evidence = compare.compare_configurations(one, other, measure, margin)
    return Statement(compare.FORMATS["text"](evidence), json.loads(compare.FORMATS["json"](evidence)))
