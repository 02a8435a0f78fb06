"""What a setting does with each class, from its trials' predictions."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from cnnjax.report.read import Run
from cnnjax.report.style import INK, PAPER, SERIES, Plot, canvas, render


def draw_confusions(run: Run) -> Iterator[Plot]:
    """The confusion matrix of each model's best setting."""
    for model, setting in run.best_of_models.items():
        counts = run.confusion(setting)
        if counts is not None:
            yield _confusion(run, model, setting, counts)


def _confusion(run: Run, model: str, setting: int, counts: np.ndarray) -> Plot:
    from matplotlib.colors import to_rgb

    total = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(total, 1)
    figure, [[axes]] = canvas(5.4, 5.4)
    classes = len(counts)
    # one colour, more or less of it: readable on light and on dark paper
    cells = np.concatenate([np.broadcast_to(to_rgb(SERIES[0]), (*share.shape, 3)), share[..., None]], -1)
    axes.pcolormesh(cells, rasterized=classes > 30)
    if classes <= 12:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = PAPER if share[row, column] > 0.55 else INK
                place: dict[str, Any] = {"color": colour, "ha": "center", "in_layout": False}
                percent = f"{100 * share[row, column]:.0f}"
                for dy, text, va, size in ((0.48, percent, "bottom", 7.5), (0.54, count, "top", 5)):
                    axes.text(column + 0.5, row + dy, text, va=va, fontsize=size, **place)
    names = run.classes if classes <= 30 else [""] * classes  # more cannot be read
    axes.set_xticks(np.arange(classes) + 0.5, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(classes) + 0.5, names)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.grid(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(model)
    n = int(run.settings.loc[setting, "n"])
    caption = (
        f"Confusion on the test set, {run.describe(setting)}, summed over {n} "
        f"seed{'s' * (n > 1)}. Colour and upper figure: % of the true class; lower figure: count."
    )
    return render(figure, f"confusion_{_file(model)}", "Confusion of each model's best setting", caption)


def _file(name: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "_" for c in name)
