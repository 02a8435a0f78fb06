"""Augmentations by their names: the values of `data.augment`, and how a trial writes them. Pure Python."""

import contextlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from cnnjax.study.own_code import is_reference, load
from cnnjax.study.rules import Rule, check_distinct, integer, number
from cnnjax.utils.errors import RequestError

NONE = "none"  # of a trial without augmentation
MAGNITUDES = 31  # of RandAugment


class Augmentation(NamedTuple):
    """An augmentation and its arguments. The name of a function of a file is its reference.

    The arguments are the numbers of its text; of a crop, its pixels and whether the padding reflects the image.
    """

    name: str
    arguments: tuple = ()


_ALPHA = ("ALPHA", number(0, 1000, exclusive=True))
_RANGE = ("RANGE", number(0, 100, exclusive=True))
# The arguments of each name. The order is that of the names in the text of a trial, and the place of a name is the
# number of its random stream: new names go to the end.
_ARGUMENTS: dict[str, tuple[tuple[str, Rule], ...]] = {
    "flip": (),
    "crop": (("PIXELS", integer(1, 4096)),),
    "flip_all": (),
    "flip_vertical_all": (),
    "rotate": (),
    "alternating_flip": (),
    "randaugment": (("OPERATIONS", integer(1, 16)), ("MAGNITUDE", integer(0, MAGNITUDES - 1))),
    "brightness": (_RANGE,),
    "contrast": (_RANGE,),
    "cutout": (("SIDE", integer(1, 4096)),),
    "mixup": (_ALPHA,),
    "cutmix": (_ALPHA,),
}
NAMES = tuple(_ARGUMENTS)
TEST_TIME_KINDS = ("none", "flip", "flip+shift")  # values of `data.test_time_augment`
MIXES = ("mixup", "cutmix")
OF_TESTS = tuple(name for name in NAMES if name not in (*MIXES, "alternating_flip"))  # keep the label, in any epoch
_FORMS = {name: ":".join([name, *(label for label, _ in of)]) for name, of in _ARGUMENTS.items()}
_FORMS["crop"] = "crop[:PIXELS][:reflect]"
_CROP = "4"  # the pixels of a crop without arguments
_EXCLUSIVE = (("flip", "alternating_flip"), MIXES, ("rotate", "randaugment"))
_ALLOWED = (
    f"must be {NONE}, one of {', '.join(_FORMS.values())}, a function augment.py:NAME, or several of them joined by +"
)


def parse(text: Any) -> Augmentation:
    """Returns the augmentation that a text names.

    Raises:
        ValueError: the text is not allowed. The message is the problem for a RequestError.
    """
    if is_reference(text):
        return Augmentation(text)
    name, *given = text.split(":") if isinstance(text, str) else ("",)
    if name not in _ARGUMENTS:
        raise ValueError(_ALLOWED)
    reflects = name == "crop" and given[-1:] == ["reflect"]
    if reflects:
        given.pop()
    if name == "crop" and not given:
        given = [_CROP]
    if len(given) != len(_ARGUMENTS[name]):
        raise ValueError(f"must have the form {_FORMS[name]}")
    values = tuple(map(_number, given))
    for value, (label, rule) in zip(values, _ARGUMENTS[name], strict=True):
        if not rule.accepts(value):
            condition = rule.allowed.replace("must be", "is")
            raise ValueError(f"must have the form {_FORMS[name]}, where {label} {condition}")
    return Augmentation(name, (*values, reflects) if name == "crop" else values)


def _number(text: str) -> int | float | None:
    for read in (int, float):
        with contextlib.suppress(ValueError):
            number = read(text)
            return int(number) if number == number // 1 else number
    return None


def _write(augmentation: Augmentation) -> str:
    """Returns the only text that trials have for an augmentation."""
    name, arguments = augmentation
    if name == "crop":
        pixels, reflects = arguments
        arguments = (*((pixels,) if str(pixels) != _CROP else ()), *(("reflect",) if reflects else ()))
    return ":".join(map(str, (name, *arguments)))


def _is_allowed(text: Any) -> bool:
    try:
        return bool(parse(text))
    except ValueError:
        return False


RULE = Rule(_is_allowed, _ALLOWED)


def read_axis(key: str, value: Any) -> tuple[tuple[str, ...], ...]:
    """Reads values of `data.augment`, each a tuple of names that are applied together.

    A text is one value: `flip`, `flip+crop:2` or `none`. A plain tuple of names is one value, too. A tuple is an axis
    of several values if it contains a tuple, `none` or names joined by +.

    Returns:
        The values. The names of each are in the order of `NAMES`: training does not depend on their order. Functions of
        files follow in the order that was given, which is the order of their calls.

    Raises:
        RequestError: a name is unknown, an argument is out of range, a name or value occurs twice, or two names exclude
            each other.
    """
    items = value if isinstance(value, list | tuple) else (value,)
    if all(isinstance(item, str) and item != NONE and "+" not in item for item in items):
        items = (items,)
    values = tuple(_read_one(key, item) for item in items)
    check_distinct(key, value, values)
    return values


def _read_one(key: str, value: Any) -> tuple[str, ...]:
    given = names(value) if isinstance(value, str) else value if isinstance(value, list | tuple) else (value,)
    found = {}
    for text in given:
        try:
            augmentation = parse(text)
        except ValueError as error:
            raise RequestError(key, text, str(error)) from None
        found[augmentation.name] = augmentation
    if len(found) < len(given):
        raise RequestError(key, value, "a name occurs twice; use distinct names")
    for one, other in _EXCLUSIVE:
        if one in found and other in found:
            raise RequestError(key, value, f"{one} and {other} exclude each other; use one of them")
    return (*(_write(found[name]) for name in NAMES if name in found), *filter(is_reference, found))


def levels(values: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """Returns each value as the text that trials have: `flip+crop` or `none`."""
    return tuple("+".join(value) or NONE for value in values)


def names(text: str) -> tuple[str, ...]:
    """Returns the names, with their arguments, in the text of a trial."""
    return () if text == NONE else tuple(text.split("+"))


def mixes_examples(augment: tuple[str, ...]) -> bool:
    """Whether an augmentation reads several images of a batch for one, as functions of files may."""
    return any(is_reference(text) or parse(text).name in MIXES for text in augment)


def own_functions(values: Iterable[tuple[str, ...]]) -> list[str]:
    """Returns the functions of files in the values of `data.augment`, each once."""
    return list(dict.fromkeys(text for value in values for text in value if is_reference(text)))


def load_functions(values: Iterable[tuple[str, ...]]) -> None:
    """Imports the files of own functions. Raises RequestError if one cannot be imported, or lacks the function."""
    for reference in own_functions(values):
        load("data.augment", reference)


def check_fits(values: Iterable[tuple[str, ...]], test_time: str, image_shape: tuple[int, int, int]) -> None:
    """Raises RequestError if the images, of shape (H, W, C), are too small for an augmentation.

    Args:
        values: of `data.augment`.
        test_time: the value of `data.test_time_augment`.
        image_shape: (H, W, C).
    """
    needed = {("data.test_time_augment", test_time): 2 if test_time == "flip+shift" else 1}
    for text in (text for value in values for text in value):
        name, arguments = parse(text)
        # A reflection does not repeat the outermost pixels; RandAugment sees the neighbors of a pixel.
        reflected = arguments[0] + 1 if name == "crop" and arguments[1] else 1
        needed["data.augment", text] = 3 if name == "randaugment" else reflected
    size = "x".join(map(str, image_shape[:2]))
    for (key, text), least in needed.items():
        if min(image_shape[:2]) < least:
            raise RequestError(key, text, f"it needs images of at least {least}x{least} pixels; these are {size}")
