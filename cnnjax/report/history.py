"""Curves of several settings on common axes: every measure of the history, and all models at once."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from cnnjax.report.colors import setting_look
from cnnjax.report.curves import draw_mean, hide_spare, label, left_out
from cnnjax.report.run import Run
from cnnjax.report.style import SERIES, Plot, canvas, keep_in_bounds, legend, line_handle, render
from cnnjax.stopping import METRICS

_FEW = len(SERIES)  # lines that colours alone tell apart
_GROUP = "Models and settings by epoch"


def draw_history(run: Run) -> Iterator[Plot]:
    """A panel per measure of the history; with several models, their losses and accuracies on one axis each."""
    if run.history["epoch"].nunique() < 2:
        return
    shown = [column for column in METRICS if run.epochs[column].notna().any()]
    models = {setting: model for model, setting in run.best_of_models.items()}
    settings = (
        {setting: run.tell_apart(setting) for setting in map(int, run.settings.index)}
        if len(run.settings) <= _FEW
        else models
    )
    # loss and accuracy of one model are what the learning curves show
    if settings and (len(models) > 1 or len(shown) > 4):
        yield _panels(run, settings, shown)
    if len(models) > 1:
        yield _together(run, models, "val_loss" if "val_loss" in shown else "train_loss")
    if len(models) > 3:
        yield _together(run, models, "train_accuracy")


def _panels(run: Run, settings: dict[int, str], columns: list[str]) -> Plot:
    """Two panels in a row; the legend stands under them, or where a panel is left over."""
    rows = -(-len(columns) // 2)
    figure, grid = canvas(8.6, 2.2 * rows + 0.3, 2, rows, sharex=True)
    panels = [axes for row in grid for axes in row]
    history = run.history_of(settings)
    for axes, column in zip(panels, columns, strict=False):
        _draw(run, axes, history, settings, column)
        axes.set_title(_title(column))
        keep_in_bounds([axes], column)
    hide_spare(panels, len(columns), 2)
    if len(panels) > len(columns) and len(settings) <= 2 * _FEW:
        panels[-1].legend(handles=_handles(run, settings), loc="center", ncols=1 + (len(settings) > _FEW))
    else:
        legend(figure, _handles(run, settings), columns=len(settings))
    caption = f"Every measure by epoch, one line per {_what(run, settings)}. {_spread(run, history)}"
    return render(figure, "history", _GROUP, caption)


def _together(run: Run, models: dict[int, str], column: str) -> Plot:
    figure, [[axes]] = canvas(8.6, 4.6)
    history = run.history_of(models)
    _draw(run, axes, history, models, column)
    keep_in_bounds([axes], column)
    axes.set_xlabel("epoch")
    axes.locator_params(axis="x", integer=True)
    axes.set_ylabel(_title(column))
    legend(figure, _handles(run, models), columns=len(models))
    caption = f"{_title(column)} by epoch, one line per {_what(run, models)}. {_spread(run, history)}"
    return render(figure, f"models_{column}", _GROUP, caption)


def _draw(run: Run, axes: Any, history: pd.DataFrame, settings: dict[int, str], column: str) -> None:
    for setting in settings:
        of_setting = history[history["setting"] == setting]
        if of_setting[column].notna().any():
            draw_mean(axes, of_setting, column, band=len(settings) <= _FEW, **setting_look(run, setting))


def _handles(run: Run, settings: dict[int, str]) -> list[Any]:
    return [line_handle(name, **setting_look(run, setting)) for setting, name in settings.items()]


def _title(column: str) -> str:
    split, _, measure = column.partition("_")
    name = {"f1": "macro F1", "precision": "macro precision", "recall": "macro recall"}.get(measure, measure)
    return label({"train": "Training", "val": "Validation"}[split], name)


def _what(run: Run, settings: dict[int, str]) -> str:
    if len(settings) == len(run.settings):
        return "setting"
    return f"model: its best setting by {run.config['select']}"


def _spread(run: Run, history: pd.DataFrame) -> str:
    if history.groupby("setting")["member"].nunique().max() < 2:
        said = "One seed each: no bands."
    elif history["setting"].nunique() > _FEW:
        said = "Mean over seeds; so many bands would hide each other."
    else:
        said = "Mean over seeds, band: ± the standard deviation across seeds."
    return " ".join([said, *left_out(run, history)])
