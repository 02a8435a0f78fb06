"""The look of figures, and their rendering as SVG that follows the light or dark colors of a page."""

import dataclasses
import functools
import hashlib
import html
import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnjax.analysis.columns import bounds, scale
from cnnjax.analysis.run import Run
from cnnjax.report.labels import FONT, assign_fonts, legend_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1b1d21", "#666c76", "#e2e4e8", "#ffffff"
# distinct for people with any color vision (after Okabe and Ito)
SERIES = ("#0072b2", "#d55e00", "#009e73", "#b8538f", "#d89000", "#4ba3d9", "#7d5a2a", "#5b6773")
_FILE = 60  # characters of a name in a file name
_LETTERS_PER_INCH, _INCHES_PER_ROW = 14, 0.18  # of a legend, on average
LINES = ("-", (0, (4, 1.6)), (0, (1, 1.4)), (0, (5, 1.2, 1, 1.2)))
# page.css gives each variable a light and a dark value
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"} | {
    color: f"series-{index}" for index, color in enumerate(SERIES)
}
_COLORS = re.compile("|".join(_VARIABLES), re.IGNORECASE)
_SETTINGS: dict[str, Any] = {
    "font.family": FONT,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": INK,
    "text.parse_math": False,  # a name may have dollars
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",
}


@dataclasses.dataclass(frozen=True)
class Plot:
    """A rendered figure.

    Attributes:
        name: of its files.
        group: the heading under which a page shows it.
        caption: what it shows, and what its error bars are.
        wide: whether it takes the whole width of a page.
        svg: a document of its own.
        inline: the same as part of a page, in the page's colors.
        png: the same as pixels.
    """

    name: str
    group: str
    caption: str
    wide: bool
    svg: str
    inline: str
    png: bytes


def context() -> Any:
    """Returns a context manager that sets matplotlib's parameters for figures of a report."""
    import matplotlib

    return matplotlib.rc_context(_SETTINGS)


def themed(draw: Callable[..., Iterable[Plot]]) -> Callable[..., list[Plot]]:
    """Makes a function that draws figures draw them with the parameters of `context`."""

    @functools.wraps(draw)
    def drawn(*args: Any) -> list[Plot]:
        with context():
            return list(draw(*args))

    return drawn


def canvas(
    width: float, height: float, columns: int = 1, rows: int = 1, **kwargs: Any
) -> tuple["Figure", list[list["Axes"]]]:
    """Creates a figure of rows x columns axes, sizes in inches, without the global state of pyplot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs).tolist()


def render(figure: "Figure", name: str, group: str, caption: str) -> Plot:
    """Renders a figure as SVG and as PNG."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    text, pixels = io.StringIO(), io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # the same figure, the same bytes
    # savefig would draw everything twice
    with matplotlib.rc_context({"svg.hashsalt": name, "font.family": assign_fonts(figure)}):
        FigureCanvasSVG(figure).print_svg(text, metadata=nothing)
        figure.set_layout_engine("none")  # the layout is done
        figure.set_dpi(150)
        FigureCanvasAgg(figure).print_png(pixels)
    svg = text.getvalue()
    wide = figure.get_figwidth() > 6
    return Plot(name, group, caption, wide, svg, _inline(svg, name, caption), pixels.getvalue())


def _inline(svg: str, name: str, label: str) -> str:
    """Returns the SVG as part of a page: unique ids, colors as variables, a label for screen readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' (width|height)="([\d.]+)pt"', lambda m: f' {m[1]}="{1.45 * float(m[2]):.0f}"', svg, count=2)
    svg = re.sub("<[^>]*>", lambda tag: _tag(tag[0], name), svg)  # not the text between tags
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


def _tag(tag: str, name: str) -> str:
    tag = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", tag)
    return _COLORS.sub(lambda found: f"var(--{_VARIABLES[found[0].lower()]})", tag)


def legend(figure: "Figure", handles: Sequence[Any], columns: int = 4) -> None:
    """Adds a legend below all axes, in at most `columns` columns and not wider than the figure.

    If the legend needs more rows than with `columns` columns, the figure grows and its axes keep their size.
    """
    names = [handle.get_label() for handle in handles]

    def letters(columns: int) -> int:  # 8 for the line sample and the gap between columns
        return sum(max(map(len, column)) + 8 for column in np.array_split(names, columns))

    most = _LETTERS_PER_INCH * figure.get_figwidth()
    wanted = min(columns, len(names))
    fitting = max((count for count in range(1, wanted + 1) if letters(count) <= most), default=1)
    more = -(-len(names) // fitting) - -(-len(names) // wanted)
    figure.set_figheight(figure.get_figheight() + _INCHES_PER_ROW * more)
    figure.legend(handles=list(handles), loc="outside lower center", ncols=fitting)


def off_zero(axes: Sequence["Axes"], along: str = "y") -> str:
    """Returns the sentence of a caption on axes that do not start at zero; empty if all do."""
    cut = sum(getattr(one, f"get_{along}lim")()[0] > 0 for one in axes)
    if 0 < cut < len(axes):
        return " Not all axes start at zero."
    return f" The {'axis does' if cut == 1 else 'axes do'} not start at zero." if cut else ""


def keep_in_bounds(axes: Sequence["Axes"], measure: str, along: str = "y") -> None:
    """Cuts axes and their ticks to the bounds of a measure, such as 100 % for an accuracy."""
    least, most = (scale(measure) * end for end in bounds(measure))
    for one in axes:
        limits = getattr(one, f"get_{along}lim")()
        low, high = max(limits[0], least), min(limits[1], most)
        if (low, high) == limits:
            continue
        for line in one.lines:  # markers at the bounds stay whole
            values = np.asarray(getattr(line, f"get_{along}data")(), float)
            line.set_clip_on(not (len(values) and (values >= low).all() and (values <= high).all()))
        ticks = [tick for tick in getattr(one, f"get_{along}ticks")() if low <= tick <= high]
        getattr(one, f"set_{along}ticks")(ticks)
        getattr(one, f"set_{along}lim")(low, high)


def line_handle(label: str, **style: Any) -> Any:
    """Creates the legend entry of a line."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=legend_label(label), **style)


def file_name(name: str) -> str:
    """Returns a name as part of a file name: ASCII letters, digits and "_", with a hash if characters were replaced."""
    plain = "".join(c if c.isalnum() and c.isascii() else "_" for c in name)[:_FILE]
    return plain if plain == name else f"{plain}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def draw_bars(axes: "Axes", places: Any, lengths: Any, thickness: float, color: str, *, upright: bool = False) -> None:
    """Draws translucent bars that hide the grid behind them."""
    draw = axes.bar if upright else axes.barh
    draw(places, lengths, thickness, color=PAPER)
    draw(places, lengths, thickness, color=color, alpha=0.6)


def name_rows(axes: "Axes", names: Sequence[str]) -> None:
    """Labels the rows 0, 1, ... of an axes of horizontal bars, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")


def as_rgb(images: np.ndarray) -> np.ndarray:
    """Returns images [..., C] as [..., 3]: the first channel of one or two as gray, the first three of more."""
    return images[..., :3] if images.shape[-1] >= 3 else np.repeat(images[..., :1], 3, axis=-1)


def configuration_look(run: Run, configuration: int) -> dict[str, Any]:
    """Returns the color and line style of a configuration, the same in all figures. The best have the first colors.

    Line styles other than solid start where the colors are used up.
    """
    order = list(dict.fromkeys([*run.foremost(len(run.ranked)), *run.ranked, *map(int, run.configurations.index)]))
    place = order.index(configuration)
    return {"color": SERIES[place % len(SERIES)], "ls": LINES[place // len(SERIES) % len(LINES)]}


def configuration_color(run: Run, configuration: int) -> str:
    """Returns the color of a configuration."""
    return str(configuration_look(run, configuration)["color"])


def model_color(run: Run, model: str) -> str:
    """Returns the color of a model: that of its best configuration."""
    first = run.configurations.index[run.configurations["model"] == model][0]
    return configuration_color(run, run.best_of_models.get(model, int(first)))
