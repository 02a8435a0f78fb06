"""Names as labels of figures: shortened, wrapped, and in fonts that have their characters."""

import functools
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONT = "DejaVu Sans"  # included in matplotlib
_NO_FONTS = ("DejaVu", "Last Resort", "cm", "STIXSize", "STIXNon")  # already in use, or with a private encoding
_LONGEST, _LONGEST_TICK = 110, 48  # characters of a line


def shortened(name: str, most: int) -> str:
    """Returns a name on one line of at most `most` characters; a longer one ends in an ellipsis."""
    name = " ".join(name.split())
    return name if len(name) <= most else f"{name[: most - 1]}…"


def legend_label(name: str) -> str:
    """Returns a name as a legend label; matplotlib ignores labels that begin with an underscore."""
    name = shortened(name, _LONGEST)
    return f" {name}" if name.startswith("_") else name


def assign_fonts(figure: "Figure") -> list[str]:
    """Sets fonts that have all characters of a figure's texts; replaces the characters that no font has.

    Returns:
        The names of the fonts.
    """
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    texts: list[Any] = figure.findobj(Text)
    fonts, lost = _fonts(frozenset("".join(_composed(text.get_text()) for text in texts)))
    for text in texts:
        text.set_text(_drawable(text.get_text(), lost, _LONGEST))
        text.set_fontfamily(fonts)
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            formatter = axis.get_major_formatter()
            if isinstance(formatter, FixedFormatter | FuncFormatter):  # it formats its labels again when drawn
                axis.set_major_formatter(functools.partial(_format, formatter, lost))
    return fonts


def _format(formatter: Any, lost: frozenset[str], value: float, place: int | None) -> str:
    return _drawable(formatter(value, place), lost, _LONGEST_TICK)


def _composed(text: str) -> str:
    """Composes accents with their letters, and replaces unprintable characters by spaces."""
    composed = unicodedata.normalize("NFC", text)
    return "".join(c if c.isprintable() or c == "\n" else " " for c in composed)


def _drawable(text: str, lost: frozenset[str], longest: int) -> str:
    lines = ("".join(_stand_in(c) if c in lost else c for c in line) for line in _composed(text).split("\n"))
    return "\n".join(line if len(line) <= longest else f"{line[: longest - 1]}…" for line in lines)


def _stand_in(letter: str) -> str:
    """Returns the ASCII form of a character, the name of an emoji, or the code point."""
    plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    if plain:
        return plain
    if unicodedata.category(letter) in ("So", "Sk"):
        return f":{unicodedata.name(letter, f'U+{ord(letter):04X}').lower()}:"
    return "" if unicodedata.category(letter) in ("Mn", "Cf") else f"U+{ord(letter):04X} "


@functools.lru_cache(1024)
def _fonts(letters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Returns fonts that together have these characters, and the characters that no font has."""
    missing, fonts = {c for c in letters if c != "\n"} - _letters_of(_path(FONT)), [FONT]
    if missing:
        for name, path in _system_fonts():
            if found := missing & _letters_of(path):
                fonts.append(name)
                missing -= found
    return fonts, frozenset(missing)


def _path(font: str) -> str:
    from matplotlib.font_manager import findfont

    return str(findfont(font))


def _system_fonts() -> list[tuple[str, str]]:
    """Returns the names and paths of the regular faces of all other fonts of the system."""
    from matplotlib.font_manager import fontManager

    faces = {font.name: font.fname for font in fontManager.ttflist if (font.style, font.weight) == ("normal", 400)}
    return sorted((name, path) for name, path in faces.items() if not name.startswith(_NO_FONTS))


@functools.lru_cache(1024)
def _letters_of(path: str) -> frozenset[str]:
    from matplotlib.font_manager import get_font

    try:
        font = get_font(path)
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (OSError, RuntimeError):  # matplotlib cannot read it
        return frozenset()
