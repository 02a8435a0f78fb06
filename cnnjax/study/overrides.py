"""Builds a validated study from a config, or from a config file and overrides `key=value`.

The rules of the study check the type of an override, not the value that it replaces. So an override may replace one
value by an axis of the grid.
"""

import ast
import os
import runpy
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import ml_collections

from cnnjax.models.specs import KINDS
from cnnjax.study import own_code, ranges
from cnnjax.study.schema import Study, from_config
from cnnjax.utils.errors import RequestError
from cnnjax.utils.paths import expanded

Config: TypeAlias = str | os.PathLike | Mapping | ml_collections.ConfigDict | Study


def read_study(config: Config) -> Study:
    """Validates a config.

    Args:
        config: nested dicts or a ConfigDict; the path of a config file, which may end in `:argument`; or a study.

    Raises:
        RequestError: the config is of another type, the file does not return a config, or the study is not valid.
    """
    if isinstance(config, Study):
        return config
    if isinstance(config, str | os.PathLike):
        return load_study(os.fspath(config))
    if not isinstance(config, Mapping | ml_collections.ConfigDict):
        raise RequestError("config", config, "must be a mapping, a ConfigDict, or the path of a config file")
    main = {"__name__": "__main__", **vars(sys.modules["__main__"])}
    return _with_code(_plain(config, Path.cwd(), main), Path.cwd())


def config_name(config: str) -> str:
    """Returns the name of a config: grid for configs/grid.py, and grid-smoke for configs/grid.py:smoke."""
    path, argument = split_config(config)
    return "-".join(filter(None, (path.stem, argument)))


def load_study(config: str, overrides: Sequence[str] = ()) -> Study:
    """Builds a config, applies overrides, and validates the result.

    Args:
        config: path of a Python file with a function `get_config`, or `path:argument`.
        overrides: strings `key=value`, with keys like `train.epochs`. The last one wins.

    Raises:
        RequestError: the file does not return a config, or the study is not valid.
    """
    return overridden(_read_config(config), overrides, split_config(config)[0].parent)


def overridden(values: dict[str, Any], overrides: Sequence[str], folder: Path | None = None) -> Study:
    """Applies overrides to the values of a study, and validates it. Takes overrides and raises as `load_study`.

    Files of own code are relative to `folder`; None keeps those of the values.
    """
    for override in overrides:
        key, _, text = override.partition("=")
        _set(values, key, read_value(text))
    return from_config(values) if folder is None else _with_code(values, folder)


def _with_code(values: dict[str, Any], folder: Path) -> Study:
    return from_config({**values, "code": own_code.find_files(values, folder)})


def split_config(config: str) -> tuple[Path, str]:
    """Splits `path:argument`. Without an argument, it is an empty string."""
    path, _, argument = config.partition(":")
    return expanded("--config", path), argument


def read_value(text: str) -> Any:
    """Parses the value of an override.

    A Python literal is evaluated. Otherwise a list with commas is a tuple of parsed values, an empty text is an empty
    tuple, and any other text is a string, as is a range: `uniform(0, 0.9)`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd literals: validation reports them
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass  # not a literal
    if not text.strip():
        return ()
    if "," not in text or ranges.is_call(text):
        return text.strip()
    return tuple(read_value(item) for item in text.removesuffix(",").split(","))


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *groups, name = key.split(".")
    for depth, group in enumerate(groups, 1):
        values = values.setdefault(group, {})
        if not isinstance(values, dict):
            parent = ".".join(groups[:depth])
            raise RequestError(key, value, f"{parent} is not a group of keys")
    values[name] = value


def _read_config(config: str) -> dict[str, Any]:
    path, argument = split_config(config)
    if not path.is_file():
        raise RequestError("--config", config, f"there is no file {path}")
    try:
        with own_code.imports_beside(path):
            names = runpy.run_path(str(path))
            if "get_config" not in names:
                raise RequestError("--config", config, f"{path} has no function get_config")
            built = names["get_config"](*([argument] if argument else []))
        if not isinstance(built, Mapping | ml_collections.ConfigDict):
            raise RequestError("--config", config, f"get_config of {path} returned {built!r}; use a ConfigDict")
        return _plain(built, path.parent, names)
    except RequestError:
        raise
    except (Exception, SystemExit) as error:  # code of the user may raise anything
        reason = f"{path} raised {type(error).__name__}: {error}"
        raise RequestError("--config", config, reason) from error


def _plain(value: Any, folder: Path, namespace: Mapping[str, Any], key: str = "") -> Any:
    """Returns a config as nested dicts; ConfigDicts may also stand in dicts and tuples.

    Functions, classes, and tuples of layers become references. Their files are relative to `folder`, and `namespace`
    has the names of tuples.
    """
    if isinstance(value, Mapping | ml_collections.ConfigDict):
        prefix = f"{key}." if key else ""
        return {name: _plain(item, folder, namespace, f"{prefix}{name}") for name, item in value.items()}
    is_tuple = isinstance(value, list | tuple)
    if callable(value) or (is_tuple and value and all(isinstance(item, KINDS) for item in value)):
        return own_code.named(key, value, folder, namespace)
    return tuple(_plain(item, folder, namespace, key) for item in value) if is_tuple else value
