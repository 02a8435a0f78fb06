"""The color of each setting, the same in all figures; the best settings get the first colors."""

from typing import Any

from cnnjax.report.run import Run
from cnnjax.report.style import LINES, SERIES


def setting_look(run: Run, setting: int) -> dict[str, Any]:
    """Returns the color and the line style of a setting; styles other than solid follow when the colors are used up."""
    order = list(dict.fromkeys([*run.foremost(len(run.ranked)), *run.ranked, *map(int, run.settings.index)]))
    place = order.index(setting)
    return {"color": SERIES[place % len(SERIES)], "ls": LINES[place // len(SERIES) % len(LINES)]}


def setting_color(run: Run, setting: int) -> str:
    """The color of a setting, without the dash."""
    return str(setting_look(run, setting)["color"])


def model_color(run: Run, model: str) -> str:
    """The color of a model: that of its best setting."""
    first = run.settings.index[run.settings["model"] == model][0]
    return setting_color(run, run.best_of_models.get(model, int(first)))
