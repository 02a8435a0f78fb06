"""Reads pickled arrays without running code of the pickle.

Unpickling an untrusted file can run arbitrary code. This reader only records the calls of a pickle, and accepts
uint8 arrays, dicts, lists, text and numbers.
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

# Names in pickles of NumPy arrays. NumPy 2 renamed the first module to the second.
_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}
_BYTES = (b"u1", "u1", b"uint8", "uint8")


class _Call:
    """A recorded call of a pickle, which is never run."""

    def __init__(self, name: str, arguments: tuple):
        self.name = name
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"the pickle calls {f'{module}.{name}'[:60]!r}")
        return lambda *arguments: _Call(name, arguments)


def read_pickle(path: Path) -> dict[str, Any]:
    """Reads a dict that was pickled by Python 2 or 3.

    Returns:
        The dict with keys of type str. Values are uint8 arrays, dicts, lists, tuples, numbers, str, and bytes (the
        strings of Python 2).

    Raises:
        RequestError: the pickle holds another type or is damaged.
    """
    try:
        content = path.read_bytes()
        _check_memo(content)
        pickled = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(pickled, dict):
            raise pickle.UnpicklingError(f"the pickle holds a {type(pickled).__name__}")
        return {_text(key): _value(value) for key, value in pickled.items()}
    except Exception as error:  # a damaged pickle can raise anything
        problem = f"the pickle is damaged or of unknown content ({first_line(error)[:120]})"
        raise PathError(path, f"{problem}; use a dict of lists, text, numbers and uint8 arrays") from error


def _check_memo(content: bytes) -> None:
    """Raises an error for lengths and memo indices beyond the file's size: the unpickler would allocate the memory."""
    for opcode, argument, _ in pickletools.genops(content):  # raises for lengths beyond the end
        if "PUT" in opcode.name and not 0 <= (argument or 0) <= len(content):
            raise pickle.UnpicklingError(f"the memo index {argument} is too large")


def _text(key: Any) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def _value(value: Any) -> Any:
    """Returns the array of a recorded call, and other values unchanged."""
    if not isinstance(value, _Call):
        return value
    _, shape, dtype, fortran, content = value.state
    if dtype.name != "dtype" or dtype.arguments[0] not in _BYTES or value.name != "_reconstruct":
        raise pickle.UnpicklingError("an array is not uint8")
    if math.prod(shape) != len(content):
        raise pickle.UnpicklingError(f"an array {list(shape)} has {len(content):,} bytes")
    return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")
