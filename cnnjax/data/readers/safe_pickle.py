"""Reads pickled arrays without running anything that the pickle names.

A pickle is a program, so a file from elsewhere may run whatever it likes. Here every call that it asks
for is only written down; what is no array of bytes, dict, list, text or number is refused.
"""

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data.readers.checks import PathError
from cnnjax.utils.text import first_line

# What NumPy's arrays are pickled as; the second module is the first one's name since NumPy 2.
_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}
_BYTES = (b"u1", "u1", b"uint8", "uint8")


class _Call:
    """A call that a pickle asks for and does not get."""

    def __init__(self, name: str, arguments: tuple):
        self.name = name
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it asks for {f'{module}.{name}'[:60]!r}")
        return lambda *arguments: _Call(name, arguments)


def read_pickle(path: Path) -> dict[str, Any]:
    """Reads a pickled dict, of Python 2 or 3.

    Args:
        path: the file.

    Returns:
        The dict, its keys as str; its values are uint8 arrays, dicts, lists, tuples, numbers, str
        and bytes (as which Python 2's texts are read).

    Raises:
        RequestError: the pickle holds or asks for anything else, or is damaged.
    """
    try:
        content = path.read_bytes()
        _check_memo(content)
        pickled = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(pickled, dict):
            raise pickle.UnpicklingError(f"it holds a {type(pickled).__name__}")
        return {_text(key): _value(value) for key, value in pickled.items()}
    except Exception as error:  # a damaged pickle can raise anything
        why = f"it is no pickle that is read ({first_line(error)[:120]})"
        raise PathError(path, f"{why}; use dicts, lists, bytes, text, numbers and arrays of bytes") from error


def _check_memo(content: bytes) -> None:
    """Refuses lengths and places beyond the file's own, for which the unpickler would take memory at once."""
    for opcode, argument, _ in pickletools.genops(content):  # itself refuses a length beyond the end
        if "PUT" in opcode.name and not 0 <= (argument or 0) <= len(content):
            raise pickle.UnpicklingError(f"it numbers an object {argument}")


def _text(key: Any) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def _value(value: Any) -> Any:
    """Returns the array that a call stands for; other values as they are."""
    if not isinstance(value, _Call):
        return value
    _, shape, dtype, fortran, content = value.state
    if dtype.name != "dtype" or dtype.arguments[0] not in _BYTES or value.name != "_reconstruct":
        raise pickle.UnpicklingError("it holds an array of other than bytes")
    if math.prod(shape) != len(content):
        raise pickle.UnpicklingError(f"its array {list(shape)} has {len(content):,} bytes")
    return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")
