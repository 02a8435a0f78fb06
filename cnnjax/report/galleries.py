"""Images of the test set, picked by what the seeds of a setting make of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from cnnjax.examples import Outcomes
from cnnjax.report.lettering import shortened
from cnnjax.report.run import Run
from cnnjax.report.style import MUTED, Plot, canvas, render

_COLUMNS, _ROWS = 8, 2
_LONGEST = 12  # letters of a class's name
_PITCH = 1.62  # from row to row, where an image is 1 high
_SIZE = 0.93  # inches of an image


def draw_galleries(run: Run, setting: int, found: Outcomes, labels: np.ndarray, n: int) -> Iterator[Plot]:
    """Draws the examples that seeds differ on, that all have wrong, and that all have right though barely.

    Nothing where the run's folder holds no images.

    Args:
        run: the run.
        setting: of the run.
        found: the setting's outcomes over its seeds.
        labels: the true classes, int [N].
        n: the number of seeds.
    """
    if run.images is None:
        return
    seeds = f"all {n} seeds have" if n > 1 else "the one seed has"
    kinds = (
        ("coin_flips", "Coin flips", "a quarter to three quarters of the seeds have right", "nearest to a half"),
        ("always_wrong", "Always wrong", f"{seeds} wrong", "most confident"),
        ("always_right", "Barely right", f"{seeds} right", "least confident"),
    )
    for kind, title, what, first in kinds:
        chosen = getattr(found, kind)
        shown = chosen[chosen < len(run.images)][: _COLUMNS * _ROWS]
        if not len(shown):
            continue
        some = f", of the first {len(run.images):,}" if len(run.images) < len(labels) else ""
        caption = (
            f"{title}: {len(chosen):,} of {len(labels):,} test images ({100 * len(chosen) / len(labels):.1f} %) that "
            f"{what}, {run.describe(setting)}. Shown{some}: the {first}. Above: the true class; below: the class "
            "predicted most often, and below that the share of seeds that have it right."
        )
        yield _gallery(run, found, labels, shown, f"examples_{kind}", caption)


def _gallery(run: Run, found: Outcomes, labels: np.ndarray, shown: np.ndarray, name: str, caption: str) -> Plot:
    assert run.images is not None
    rows = -(-len(shown) // _COLUMNS)
    height, width = run.images.shape[1:3]
    edge = max(height, width)
    figure, [[axes]] = canvas(_SIZE * 1.08 * _COLUMNS, _SIZE * _PITCH * rows)
    for place, example in enumerate(shown):
        row, column = divmod(place, _COLUMNS)
        left, top = 1.08 * column, _PITCH * row
        image = run.images[example]
        colours = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
        axes.imshow(colours, extent=(left, left + width / edge, top + height / edge, top), interpolation="none")
        middle = left + width / edge / 2
        text: dict[str, Any] = {"ha": "center", "fontsize": 6.8, "in_layout": False}
        axes.text(middle, top - 0.05, shortened(run.classes[labels[example]], _LONGEST), va="bottom", **text)
        guess = shortened(run.classes[found.predicted[example]], _LONGEST)
        predicted = f"{guess}\n{100 * found.right[example]:.0f} % right"
        axes.text(middle, top + height / edge + 0.05, predicted, va="top", color=MUTED, **text)
    axes.set_xlim(0, 1.08 * _COLUMNS - 0.08)
    axes.set_ylim(_PITCH * rows - 0.3, -0.32)
    axes.set_axis_off()
    return render(figure, name, "", caption)
