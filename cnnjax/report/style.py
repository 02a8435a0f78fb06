"""How figures look, and how one SVG is made to follow a page's light or dark colours."""

import dataclasses
import hashlib
import html
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnjax.report.lettering import FONT, legend_label, letter
from cnnjax.report.names import bounds, scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1b1d21", "#666c76", "#e2e4e8", "#ffffff"
# told apart by people with any colour vision (after Okabe and Ito)
SERIES = ("#0072b2", "#d55e00", "#009e73", "#b8538f", "#d89000", "#4ba3d9", "#7d5a2a", "#5b6773")
_FILE = 60  # letters of a name that is part of a file's
_LETTERS_PER_INCH, _INCHES_PER_ROW = 14, 0.18  # of a legend, on average
LINES = ("-", (0, (4, 1.6)), (0, (1, 1.4)), (0, (5, 1.2, 1, 1.2)))
# the page's style sheet gives each variable a light and a dark value
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"} | {
    colour: f"series-{index}" for index, colour in enumerate(SERIES)
}
_COLOURS = re.compile("|".join(_VARIABLES), re.IGNORECASE)
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
    """A rendered figure: `svg` stands alone, `inline` follows the page; a `group` has a heading."""

    name: str
    group: str
    caption: str
    wide: bool
    svg: str
    inline: str
    png: bytes


def context() -> Any:
    """The matplotlib settings of every figure, for a `with`."""
    import matplotlib

    return matplotlib.rc_context(_SETTINGS)


def canvas(
    width: float, height: float, columns: int = 1, rows: int = 1, **kwargs: Any
) -> tuple["Figure", list[list["Axes"]]]:
    """A figure of rows x columns axes, without pyplot and its global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs).tolist()


def render(figure: "Figure", name: str, group: str, caption: str) -> Plot:
    """Renders a figure once as SVG (for the page and as a file) and once as PNG."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    text, pixels = io.StringIO(), io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # the same figure, the same bytes
    # By the canvases themselves: savefig draws everything twice.
    with matplotlib.rc_context({"svg.hashsalt": name, "font.family": letter(figure)}):
        FigureCanvasSVG(figure).print_svg(text, metadata=nothing)
        figure.set_layout_engine("none")  # the layout is done
        figure.set_dpi(150)
        FigureCanvasAgg(figure).print_png(pixels)
    svg = text.getvalue()
    wide = figure.get_figwidth() > 6
    return Plot(name, group, caption, wide, svg, _inline(svg, name, caption), pixels.getvalue())


def _inline(svg: str, name: str, label: str) -> str:
    """The SVG as part of a page: ids of its own, colours by variable, a name for screen readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r' (width|height)="([\d.]+)pt"',
        lambda m: f' {m[1]}="{1.45 * float(m[2]):.0f}"',
        svg,
        count=2,
    )
    svg = re.sub("<[^>]*>", lambda tag: _tag(tag[0], name), svg)  # and no text between them
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


def _tag(tag: str, name: str) -> str:
    tag = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", tag)
    return _COLOURS.sub(lambda found: f"var(--{_VARIABLES[found[0].lower()]})", tag)


def legend(figure: "Figure", handles: Sequence[Any], columns: int = 4) -> None:
    """One legend under all axes, where it covers nothing, in up to so many columns as are not wider than the figure.

    The rows that this takes more than `columns` would make the figure higher, and the axes no smaller.
    """
    names = [handle.get_label() for handle in handles]

    def letters(columns: int) -> int:  # 8 stand for the sample of a line, and the space between columns
        return sum(max(map(len, column)) + 8 for column in np.array_split(names, columns))

    most = _LETTERS_PER_INCH * figure.get_figwidth()
    wanted = min(columns, len(names))
    fitting = max((count for count in range(1, wanted + 1) if letters(count) <= most), default=1)
    more = -(-len(names) // fitting) - -(-len(names) // wanted)
    figure.set_figheight(figure.get_figheight() + _INCHES_PER_ROW * more)
    figure.legend(handles=list(handles), loc="outside lower center", ncols=fitting)


def off_zero(axes: Sequence["Axes"], along: str = "y") -> str:
    """Says for a caption that axes of what is never negative start above zero; nothing where zero is on all of them."""
    cut = sum(getattr(one, f"get_{along}lim")()[0] > 0 for one in axes)
    if 0 < cut < len(axes):
        return " Not all axes start at zero."
    return f" The {'axis does' if cut == 1 else 'axes do'} not start at zero." if cut else ""


def keep_in_bounds(axes: Sequence["Axes"], measure: str, along: str = "y") -> None:
    """Ends axes, and their ticks, where a measure does: an accuracy is not more than 100 %."""
    least, most = (scale(measure) * end for end in bounds(measure))
    for one in axes:
        limits = getattr(one, f"get_{along}lim")()
        low, high = max(limits[0], least), min(limits[1], most)
        if (low, high) == limits:
            continue
        for line in one.lines:  # markers at the very end stay whole
            values = np.asarray(getattr(line, f"get_{along}data")(), float)
            line.set_clip_on(not (len(values) and (values >= low).all() and (values <= high).all()))
        ticks = [tick for tick in getattr(one, f"get_{along}ticks")() if low <= tick <= high]
        getattr(one, f"set_{along}ticks")(ticks)
        getattr(one, f"set_{along}lim")(low, high)


def line_handle(label: str, **style: Any) -> Any:
    """A legend entry."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=legend_label(label), **style)


def file_name(name: str) -> str:
    """A name as part of a file's: letters, digits and "_"; with a digest where that would not tell it from others."""
    plain = "".join(c if c.isalnum() and c.isascii() else "_" for c in name)[:_FILE]
    return plain if plain == name else f"{plain}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def wrapped(name: str, width: int) -> str:
    """A setting's name, broken behind commas into lines of at most `width` letters where its parts allow it."""
    lines = [""]
    for part in name.split(", "):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += f"{part}, "
    return "\n".join(line.rstrip() for line in lines).removesuffix(",")
