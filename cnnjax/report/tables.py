"""Tables: data frames whose numbers are exact; how a number is shown is said by its column."""

import dataclasses
import html
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from cnnjax import stats
from cnnjax.report.names import AXES, larger_is_better, level, word
from cnnjax.report.run import Run

MOST_ROWS = 250  # that a page shows of a table; the CSV file beside it has all
_SCORES = ("test_accuracy", "precision", "recall", "f1")
# column -> header, kind
_SHOWN = {
    "test_accuracy": ("test accuracy %", "percent"),
    "train_accuracy": ("train accuracy %", "percent"),
    "val_accuracy": ("val accuracy %", "percent"),
    "f1": ("F1", "number"),
    "parameters": ("parameters", "count"),
    "forward_flops": ("forward FLOPs", "count"),
    "images_per_second": ("images per second", "count"),
    "val_accuracy_std": ("std", "percent"),
    "test_accuracy_std": ("std", "percent"),
    "test_accuracy_half": ("±\u00a095\u00a0%", "percent"),
    "auc": ("AUC", "number"),
    **{f"{name}_std": ("std", "number") for name in ("precision", "recall", "f1", "auc")},
    "f1_half": ("±\u00a095\u00a0%", "number"),
    "test_accuracy_seed_std": ("std, seeds", "percent"),
    "test_accuracy_setting_std": ("std, settings", "percent"),
    "f1_seed_std": ("std, seeds", "number"),
    "f1_setting_std": ("std, settings", "number"),
    "share": ("share %", "percent"),
    "p_best": ("P(best) %", "percent"),
    "p_beats": ("P(beats) %", "percent"),
    "black": ("black %", "percent"),
}


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; `best` are the positions of the rows to highlight, `kinds` says how columns are shown.

    The last `foot` rows stay last, however the table is sorted.
    """

    name: str
    title: str
    note: str
    frame: pd.DataFrame
    best: tuple[int, ...] = ()
    kinds: Mapping[str, str] = dataclasses.field(default_factory=dict)  # where the column's name does not say it
    foot: int = 0

    def csv(self) -> str:
        """The table with every digit."""
        return self.frame.to_csv(index=False, lineterminator="\n")

    def html(self) -> str:
        """The table as shown: percent and four significant digits; of a long one the first rows, and its foot."""
        columns = list(self.frame.columns)
        kinds = self.column_kinds
        head = "".join(
            f'<th scope="col" class="{kind}"><button type="button">{html.escape(_header(column, kind))}</button></th>'
            for column, kind in zip(columns, kinds, strict=True)
        )
        rows, total = [], len(self.frame)
        for position, row in enumerate(self.frame.itertuples(index=False)):
            if MOST_ROWS <= position < total - self.foot:
                continue
            mark = ' class="best"' if position in self.best else ""
            cells = (_cell(*cell) for cell in zip(row, kinds, columns, strict=True))
            rows.append(f"<tr{mark}>{''.join(cells)}</tr>\n")
        body, foot = "".join(rows[: len(rows) - self.foot]), "".join(rows[len(rows) - self.foot :])
        return (
            f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>\n'
            f"<tbody>\n{body}</tbody>{f'<tfoot>{foot}</tfoot>' if foot else ''}</table></div>"
        )

    def text(self) -> str:
        """The table as shown, in aligned columns: words to the left, numbers to the right."""
        kinds = self.column_kinds
        rows = self.cells()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        signs = ["<" if kind == "text" else ">" for kind in kinds]
        lines = ("  ".join(f"{c:{s}{w}}" for c, s, w in zip(row, signs, widths, strict=True)) for row in rows)
        return "\n".join(line.rstrip() for line in lines)

    def cells(self) -> list[list[str]]:
        """The table as shown, its head and its rows."""
        kinds = self.column_kinds
        rows = [[_header(column, kind) for column, kind in zip(self.frame.columns, kinds, strict=True)]]
        for row in self.frame.itertuples(index=False):
            rows.append([_shown(*cell) for cell in zip(row, kinds, self.frame.columns, strict=True)])
        return rows

    @property
    def column_kinds(self) -> list[str]:
        """How each column is shown: text, axis, whole, count, percent or number."""
        return [self.kinds.get(column) or _kind(column, values) for column, values in self.frame.items()]


def make_tables(run: Run) -> list[Table]:
    """Every table that the finished trials allow."""
    if not len(run.ok):
        return []
    tables = []
    if len(run.ok) > 1:
        tables.append(_best_trials(run))
    if run.best_of_models:
        tables.append(_models(run))
    if len(run.ok[["model", "optimizer"]].drop_duplicates()) > 1:
        tables.append(_by_model_and_optimizer(run))
    settings = _settings(run)
    if len(settings.frame) > 5:
        tables.append(_top(run, settings.frame))
    return [*tables, settings]


def group_means(run: Run, by: list[str], measure: str) -> pd.DataFrame:
    """Means of settings grouped by axes, and the two spreads kept apart.

    Returns:
        The groups as index, with `mean` (of the settings' means), `setting_std` (standard
        deviation of the settings' means: the spread of hyperparameters), `seed_std` (pooled within
        settings: the spread of seeds), `settings` and `trials` (their numbers).
    """
    finished = run.settings[run.settings["n"] > 0]
    rows = {}
    for key, group in finished.groupby(by, sort=False, dropna=False):
        rows[key] = {
            "mean": group[measure].mean(),
            "setting_std": group[measure].std(),
            "seed_std": run.seed_std(group.index.tolist(), measure),
            "settings": len(group),
            "trials": int(group["n"].sum()),
        }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index = pd.MultiIndex.from_tuples(list(rows), names=by)
    return frame


def _best_trials(run: Run) -> Table:
    winners = [run.ok["test_accuracy"].idxmax(), run.ok["f1"].idxmax()]
    columns = ["trial", *shown_axes(run), "seed", *_SCORES]
    frame = run.ok.loc[winners, columns].reset_index(drop=True)
    frame.insert(0, "best by", ["test accuracy", "test F1"])
    note = (
        "The luckiest single trials: picked by what the test set says of them, so their figures "
        "are optimistic. For the choice of a setting see the headline."
    )
    return Table("best_trials", "Best trials", note, frame)


def _models(run: Run) -> Table:
    """What each model costs, and what its best setting reaches."""
    best = list(run.best_of_models.values())
    trials = run.ok.groupby("setting")
    program_of = {member: p for p in run.plan["programs"] for member in p.get("member_ids", ())}
    programs = [program_of.get(member, {}) for member in trials["member"].first().loc[best]]
    frame = run.settings.loc[best, [*shown_axes(run), "n"]].copy()
    for fact in ("parameters", "forward_flops"):
        frame[fact] = [program.get(fact, math.nan) for program in programs]
    for cost in ("seconds", "images_per_second", "epochs_run", "best_epoch"):
        frame[cost] = trials[cost].mean()
    for split in ("val", "test"):
        frame[f"{split}_accuracy"] = run.settings[f"{split}_accuracy"]
        frame[f"{split}_accuracy_std"] = trials[f"{split}_accuracy"].std()
    note = (
        f"Each model's best setting by {run.config['select']}: means over its n seeds. Forward FLOPs: of one image, "
        "two for each multiplication with addition. Seconds: a trial's share of the time that the members trained "
        "together took. Images per second: of all of them."
    )
    return Table("models", "Models", note, frame.dropna(axis="columns", how="all"))


def _by_model_and_optimizer(run: Run) -> Table:
    by = ["model", "optimizer"]
    groups = {measure: group_means(run, by, measure) for measure in _SCORES}
    frame = groups["f1"][["settings", "trials"]].copy()
    frame.insert(1, "seeds", run.ok.groupby(by)["seed"].nunique())
    for measure, group in groups.items():
        frame[measure] = group["mean"]
        if measure in ("test_accuracy", "f1"):
            frame[f"{measure}_seed_std"] = group["seed_std"]
            frame[f"{measure}_setting_std"] = group["setting_std"]
    frame = frame.sort_values("f1", ascending=False).reset_index()
    note = (
        "Means of the settings' means (test set), sorted by F1. Two spreads, never mixed: std, "
        "seeds is the standard deviation across seeds within one setting, pooled (what chance "
        "does); std, settings that of the settings' means (what the hyperparameters do)."
    )
    return Table("by_model_and_optimizer", "By model and optimizer", note, frame, (0,))


def _top(run: Run, settings: pd.DataFrame) -> Table:
    ranked = settings.sort_values("f1", ascending=False).head(5)
    shown = [*shown_axes(run), "n", "f1", "f1_half", "test_accuracy", "test_accuracy_half"]
    note = (
        "Mean over n seeds ± half the 95 % t interval of that mean. Ranked by what the test set "
        "says: a description of the study, not a selection."
    )
    return Table("top_5_by_f1", "Top 5 settings by F1", note, ranked[shown])


def _settings(run: Run) -> Table:
    """Every setting, best by the study's measure first."""
    settings = run.settings
    frame = settings[[*shown_axes(run), "n", "diverged"]].copy()
    for split in ("train", "val"):
        if settings[f"{split}_accuracy"].notna().any():
            frame[f"{split}_accuracy"] = settings[f"{split}_accuracy"]
            frame[f"{split}_loss"] = settings[f"{split}_loss"]
    frame["test_loss"] = settings["test_loss"]
    for measure in _SCORES:
        frame[measure] = settings[measure]
        if measure in ("test_accuracy", "f1"):
            summaries = [_summary(run.values(setting, measure)) for setting in settings.index]
            frame[f"{measure}_std"] = [s.std if s else math.nan for s in summaries]
            frame[f"{measure}_half"] = [(s.high - s.low) / 2 if s else math.nan for s in summaries]
    ascending = not larger_is_better(run.select)
    order = settings[run.select].sort_values(ascending=ascending, kind="stable").index
    note = (
        f"Means over n seeds, sorted by {run.config['select']}; std across seeds, and ± half the "
        "95 % t interval of the mean. The setting that the headline names is highlighted."
    )
    marked = () if run.best is None else (order.get_loc(run.best),)
    return Table("settings", "Every setting", note, frame.loc[order], marked)


def _summary(values: list[float]) -> stats.Summary | None:
    return stats.summarise(values) if values else None


def shown_axes(run: Run) -> list[str]:
    """The axes that tables name a setting by: the main ones, and whatever else the study varies."""
    return [axis for axis in AXES if axis in AXES[:5] or axis in run.varying]


def _header(column: str, kind: str) -> str:
    if column in _SHOWN:
        return _SHOWN[column][0]
    return f"{word(column)} %" if kind == "percent" else word(column)


def _kind(column: Any, values: pd.Series) -> str:
    if column in _SHOWN:
        return _SHOWN[column][1]
    if column in AXES:
        return "text" if any(isinstance(value, str) for value in values) else "axis"
    text = ("trial", "best by", "measure", "class")
    whole = ("support", "n", "seed", "seeds", "settings", "trials", "diverged")
    return "text" if column in text else "whole" if column in whole else "number"


def _cell(value: Any, kind: str, column: str) -> str:
    shown = html.escape(_shown(value, kind, column))
    if kind == "text":
        return f'<td class="text">{shown}</td>'
    raw = "" if pd.isna(value) else repr(float(value))
    return f'<td class="{kind}" data-value="{raw}">{shown}</td>'


def _shown(value: Any, kind: str, column: str) -> str:
    if kind == "text":
        return "–" if isinstance(value, float) and math.isnan(value) else str(value)
    if kind == "axis":
        return level(column, value)
    if pd.isna(value):
        return "–"
    if kind in ("whole", "count"):
        return f"{int(value):,}" if kind == "count" else str(int(value))
    return significant(100 * value if kind == "percent" else value)


def significant(value: float) -> str:
    """A number with four significant digits, never in exponent form between 1e-4 and 1e6."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    magnitude = int(f"{value:.3e}".partition("e")[2])  # after rounding: 99.999 is 100.0
    if not -5 < magnitude < 6:
        return f"{value:.3e}"
    return f"{value:.{max(0, 3 - magnitude)}f}"
