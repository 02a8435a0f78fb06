"""From `--config=path[:argument]` and `--config.key=value` to a validated study.

Overrides are typed by the study, not by the value they replace: so a single value may become an
axis of the grid.
"""

import ast
import contextlib
import os
import runpy
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags

from cnnjax.study.schema import Study, from_config
from cnnjax.utils.errors import RequestError
from cnnjax.utils.paths import expanded

CONFIG = flags.DEFINE_string("config", None, "The study: path[:argument] of a config file.")

WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run's folder (default: runs/<config>), or its URL in a store: s3://BUCKET/runs/grid."
)


def requested_study(overrides: Sequence[str]) -> Study:
    """Returns the study that the flag --config names, with `key=value` overrides.

    Raises:
        RequestError: there is no such flag, or `load_study` raises it.
    """
    if not CONFIG.value:
        raise RequestError("--config", CONFIG.value, "name a study: --config=configs/quickstart.py")
    return load_study(CONFIG.value, overrides)


def default_folder(parent: str) -> Path:
    """Returns `parent`/grid for --config=configs/grid.py and `parent`/grid-smoke for --config=configs/grid.py:smoke."""
    assert CONFIG.value  # `requested_study` has seen to it
    path, argument = split_config(CONFIG.value)
    return Path(parent) / "-".join(filter(None, (path.stem, argument)))


def load_study(config: str, overrides: Sequence[str] = ()) -> Study:
    """Builds a config, sets the overrides in it, and validates the result.

    Args:
        config: path of a Python file with a function `get_config`, or `path:argument`.
        overrides: `key=value` each, keys as in `train.epochs`; the last one of a key counts.

    Raises:
        RequestError: the file cannot be used, or the study is not valid.
    """
    return overridden(_read_config(config), overrides)


def overridden(values: dict[str, Any], overrides: Sequence[str]) -> Study:
    """Sets overrides, as `load_study` takes them, in the values of a study, and validates it; raises as that does."""
    for override in overrides:
        key, _, text = override.partition("=")
        _set(values, key, read_value(text))
    return from_config(values)


def split_config(config: str) -> tuple[Path, str]:
    """Splits `path:argument`; the argument is empty where there is none."""
    path, _, argument = config.partition(":")
    return expanded("--config", path), argument


def read_value(text: str) -> Any:
    """Reads the value of an override.

    Python literals are themselves, other words are strings, a comma list is a tuple of such values,
    and an empty text is the empty tuple.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd literals: we say ourselves what is wrong
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass  # no literal: a word, a list of words, or nothing
    if not text.strip():
        return ()
    if "," not in text:
        return text.strip()
    return tuple(read_value(item) for item in text.removesuffix(",").split(","))


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *groups, name = key.split(".")
    for depth, group in enumerate(groups, 1):
        values = values.setdefault(group, {})
        if not isinstance(values, dict):
            parent = ".".join(groups[:depth])
            raise RequestError(key, value, f"{parent} is a setting, not a group of settings")
    values[name] = value


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[None]:
    """Lets a config import files beside it, as a script may; the next one's are other files, be it by the same name."""
    folder, before = str(path.parent.absolute()), set(sys.modules)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(f"{folder}{os.sep}"):
                del sys.modules[name]


def _read_config(config: str) -> dict[str, Any]:
    path, argument = split_config(config)
    if not path.is_file():
        raise RequestError("--config", config, f"there is no file {path}")
    try:
        with _beside(path):
            names = runpy.run_path(str(path))
            if "get_config" not in names:
                raise RequestError("--config", config, f"{path} has no function get_config")
            built = names["get_config"](*([argument] if argument else []))
        if not isinstance(built, Mapping | ml_collections.ConfigDict):
            raise RequestError("--config", config, f"get_config of {path} returned {built!r}; use a ConfigDict")
        return ml_collections.ConfigDict(built).to_dict()
    except RequestError:
        raise
    except (Exception, SystemExit) as error:  # the user's code: whatever it raises, the request is wrong
        reason = f"{path} raised {type(error).__name__}: {error}"
        raise RequestError("--config", config, reason) from error
