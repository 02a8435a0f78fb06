"""Fonts for names in any script, and replacements for letters that no font of the system has."""

import functools
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONT = "DejaVu Sans"  # comes with matplotlib
_NO_FONTS = ("DejaVu", "Last Resort", "cm", "STIXSize", "STIXNon")  # known already, or with letters in wrong places
_LONGEST, _LONGEST_TICK = 110, 48  # letters of a line


def shortened(name: str, most: int) -> str:
    """Returns a name on one line; a name of more than `most` letters is cut and ends in an ellipsis."""
    name = " ".join(name.split())
    return name if len(name) <= most else f"{name[: most - 1]}…"


def legend_label(name: str) -> str:
    """A name as the label of a legend's entry; matplotlib leaves out those that begin with an underscore."""
    name = shortened(name, _LONGEST)
    return f" {name}" if name.startswith("_") else name


def letter(figure: "Figure") -> list[str]:
    """Gives every text of a figure fonts that have its letters, and replaces the letters that none has.

    Returns:
        The fonts, also for texts that are made later.
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
            if isinstance(formatter, FixedFormatter | FuncFormatter):  # which would set its labels again
                axis.set_major_formatter(functools.partial(_format, formatter, lost))
    return fonts


def _format(formatter: Any, lost: frozenset[str], value: float, place: int | None) -> str:
    return _drawable(formatter(value, place), lost, _LONGEST_TICK)


def _composed(text: str) -> str:
    """Text with accents as part of their letters, and spaces for what cannot be printed."""
    composed = unicodedata.normalize("NFC", text)
    return "".join(c if c.isprintable() or c == "\n" else " " for c in composed)


def _drawable(text: str, lost: frozenset[str], longest: int) -> str:
    lines = ("".join(_stand_in(c) if c in lost else c for c in line) for line in _composed(text).split("\n"))
    return "\n".join(line if len(line) <= longest else f"{line[: longest - 1]}…" for line in lines)


def _stand_in(letter: str) -> str:
    """The plain form of a letter, the name of an emoji, or the code."""
    plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    if plain:
        return plain
    if unicodedata.category(letter) in ("So", "Sk"):
        return f":{unicodedata.name(letter, f'U+{ord(letter):04X}').lower()}:"
    return "" if unicodedata.category(letter) in ("Mn", "Cf") else f"U+{ord(letter):04X} "


@functools.lru_cache(1024)
def _fonts(letters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Returns fonts that together have these letters, and the letters that no font has."""
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
    """The regular faces of all other fonts of the system, by name."""
    from matplotlib.font_manager import fontManager

    faces = {font.name: font.fname for font in fontManager.ttflist if (font.style, font.weight) == ("normal", 400)}
    return sorted((name, path) for name, path in faces.items() if not name.startswith(_NO_FONTS))


@functools.lru_cache(1024)
def _letters_of(path: str) -> frozenset[str]:
    from matplotlib.font_manager import get_font

    try:
        font = get_font(path)
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (OSError, RuntimeError):  # one that matplotlib cannot draw by
        return frozenset()
