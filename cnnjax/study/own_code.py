"""Code of users in a study: `nets.py:ResNet9` names an object of a Python file. Imports no jax.

A study stores references as text, and in `Study.code` the path and the sha256 of each file that they need. Nothing runs
the code until `load` imports it. Reports never do.
"""

import ast
import contextlib
import hashlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from cnnjax.models import ladder
from cnnjax.utils.errors import RequestError, UnfitCode, nearest
from cnnjax.utils.paths import expanded

Code = Mapping[str, Mapping[str, Any]]  # file, as a reference has it -> its path (None: of a notebook) and sha256

_REFERENCE = re.compile(r"([^\s+,|]*\.py):([A-Za-z_]\w*)")
_NOTEBOOK = "__main__.py"  # the file of objects that have none
_active: dict[str, Path] = {}  # files of the study that runs in this process
# Objects that configs contain, by the path of their file and their name, with the file's sha256 or their source.
_objects: dict[tuple[str, str], tuple[Any, str]] = {}
_modules: dict[tuple[Path, str], ModuleType] = {}  # by path and sha256


def is_reference(text: object) -> bool:
    """Returns whether a value names an object of a file, as `nets.py:ResNet9` does."""
    return isinstance(text, str) and _REFERENCE.fullmatch(text) is not None


def references(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yields the dotted key and the text of each reference in the strings of a study."""
    if isinstance(values, str):
        yield from ((key, f"{file}:{name}") for file, name in _REFERENCE.findall(values))
    elif isinstance(values, Mapping):
        for name, value in values.items():
            yield from references(value, f"{key}.{name}" if key else name)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from references(value, key)


def find_files(values: Mapping[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the files that the references in a study need: those they name, and the modules beside them.

    Args:
        values: the study as nested mappings.
        folder: the folder that relative paths start from.

    Raises:
        RequestError: there is no such file, or it is not valid Python.
    """
    found: dict[str, dict[str, Any]] = {}
    for key, reference in references({name: value for name, value in values.items() if name != "code"}):
        file, _, name = reference.rpartition(":")
        if (file, name) in _objects:
            found[file] = {"path": None, "sha256": _sha256(_notebook_source())}
            continue
        for name, path in _with_imports(key, reference, file, folder):
            found.setdefault(name, {"path": str(path), "sha256": _sha256(path.read_bytes())})
    return found


def _with_imports(key: str, reference: str, file: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yields a file and the modules beside it that it imports, directly or not, with their paths."""
    waiting, seen = [file], set()
    while waiting:
        name = waiting.pop()
        path = (folder / expanded(key, name)).resolve()
        if name in seen:
            continue
        seen.add(name)
        if not path.is_file():
            raise RequestError(key, reference, f"there is no file {path}; paths are relative to the config file")
        yield name, path
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None)
            raise RequestError(key, reference, f"{path}, line {line}: {error.args[0]}") from error
        for module in _imported(tree):
            beside = [path.parent / f"{module}.py", *sorted((path.parent / module).glob("**/*.py"))]
            waiting += [str(Path(name).parent / each.relative_to(path.parent)) for each in beside if each.is_file()]


def _imported(tree: ast.AST) -> set[str]:
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


def named(key: str, value: Any, folder: Path, namespace: Mapping[str, Any]) -> str:
    """Returns the reference of an object that a config contains: a class, a function, or a tuple of layers.

    Args:
        key: of the config.
        value: the object. It is kept, so that this process does not import it again.
        folder: the folder that relative paths start from.
        namespace: the names of the config file or of the notebook.

    Raises:
        RequestError: the object has no name at the top level of a file.
    """
    name, file = getattr(value, "__qualname__", ""), _file_of(value)
    if not name.isidentifier():
        file = namespace.get("__file__")
        name = next((name for name, each in namespace.items() if _are_same(each, value)), "")
    if not name:
        raise RequestError(key, value, "it has no name; define it at the top level of a Python file")
    path = Path(file) if file is not None and Path(file).is_file() else None
    shown = _NOTEBOOK if path is None else os.path.relpath(path, folder)
    reference = f"{path if shown.startswith(os.pardir) else shown}:{name}"
    if not is_reference(reference):
        raise RequestError(key, reference, "the path has a space, a comma or a plus; use another name of the file")
    if path is None:
        _objects[_NOTEBOOK, name] = value, _source(value)
    else:
        _objects[str(path.resolve()), name] = value, _sha256(path.read_bytes())
    return reference


def _are_same(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, tuple) and isinstance(other, tuple) and one == other)


def _file_of(value: Any) -> str | None:
    """Returns the file that defines a class or function. Of a notebook's cell it does not exist."""
    module = getattr(value, "__module__", "")
    if (file := getattr(sys.modules.get(module), "__file__", None)) is not None:
        return file
    files = [each.__code__.co_filename for each in _functions(value)]
    return next((file for file in files if Path(file).is_file()), next(iter(files), None))


def _functions(value: Any) -> list[Any]:
    """Returns a function, or the functions of a class that its own module defines."""
    members = vars(value).values() if inspect.isclass(value) else [value]
    functions = [inspect.unwrap(each) for each in members if inspect.isfunction(each)]
    return [each for each in functions if each.__module__ == value.__module__]


def _source(value: Any) -> str:
    """Returns the source of an object of a notebook. Before Python 3.13 only its functions have one."""
    if not hasattr(value, "__qualname__"):
        return repr(value)
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        functions = [each for each in _functions(value) if not each.__code__.co_filename.startswith("<string>")]
        return "\n".join([f"class {value.__qualname__}:", *map(inspect.getsource, functions)])


def _notebook_source() -> bytes:
    return "\n".join(source for (file, _), (_, source) in sorted(_objects.items()) if file == _NOTEBOOK).encode()


def activate(code: Code, copies: Path | None = None, *, trusted: bool = False) -> None:
    """Chooses the files that `load` imports: those of the study, unless they have changed or are gone.

    Args:
        code: `Study.code`.
        copies: the run's folder, which has copies.
        trusted: whether to use a copy in place of a file that has changed.

    Raises:
        RequestError: a file has changed or is gone, and copies are not trusted.
    """
    _active.clear()
    for file, found in code.items():
        if found["path"] is None:
            continue
        path = Path(found["path"])
        if not _is_unchanged(path, found["sha256"]):
            copy = copies and copy_path(copies, file)
            if not copy or not _is_unchanged(copy, found["sha256"]):
                raise RequestError("code", str(path), "it has changed since the run trained with it; change it back")
            if not trusted:
                how = f"change it back, or run the copy {copy} with --trust_code if you trust the run's folder"
                raise RequestError("code", str(path), f"it has changed or is gone; {how}")
            path = copy
        _active[file] = path


def prepare(code: Code, models: Iterable[str], copies: Path | None = None, *, trusted: bool = False) -> None:
    """Imports the own models of a study, so that `find_model` returns them. Arguments and errors as of `activate`."""
    activate(code, copies, trusted=trusted)
    ladder.OWN.clear()
    ladder.OWN.update({name: load("models", name) for name in models if is_reference(name)})


def _is_unchanged(path: Path, sha256: str) -> bool:
    try:
        return _sha256(path.read_bytes()) == sha256
    except OSError:
        return False


def copy_path(folder: Path, file: str) -> Path:
    """Returns the path of the copy of a file in a run's folder. Files of one folder stay side by side."""
    parts = [part for part in Path(os.path.normpath(file)).parts if part != Path(file).anchor]
    return folder.joinpath("code", *("_up" if part == os.pardir else part for part in parts))


def copies(code: Code, folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yields the path of each copy in a run's folder, and its content."""
    for file, found in code.items():
        yield copy_path(folder, file), Path(found["path"]).read_bytes() if found["path"] else _notebook_source()


def load(key: str, reference: str) -> Any:
    """Returns the object of a reference. Imports its file, which must be one of the active study's.

    Raises:
        RequestError: the file raises an exception or has no such name; the error names the file and the line.
    """
    file, _, name = reference.rpartition(":")
    if file == _NOTEBOOK:
        if (file, name) not in _objects:
            raise RequestError(key, reference, "it was defined in a notebook; define it in this one, or in a file")
        return _objects[file, name][0]
    if file not in _active:
        raise RequestError(key, reference, "its file does not belong to the study")
    path = _active[file]
    sha256 = _sha256(path.read_bytes())
    kept, of_file = _objects.get((str(path), name), (None, ""))
    if of_file == sha256:
        return kept
    module = _import(key, reference, path, sha256)
    if not hasattr(module, name):
        near = nearest(name, [each for each in vars(module) if not each.startswith("_")])
        raise RequestError(key, reference, f"{path} has no {name!r}" + (f"; did you mean {near!r}?" if near else ""))
    return getattr(module, name)


def _import(key: str, reference: str, path: Path, sha256: str) -> ModuleType:
    if (path, sha256) not in _modules:
        name = f"{path.stem}_{sha256[:12]}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)  # dataclasses look it up
        with blamed(key, reference), imports_beside(path):
            spec.loader.exec_module(module)
        _modules[path, sha256] = module
    return _modules[path, sha256]


@contextlib.contextmanager
def blamed(key: str, reference: str) -> Iterator[None]:
    """Turns an exception of a user's code into a RequestError, one line that names the file and the line."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        name = "" if isinstance(error, UnfitCode) else f"{type(error).__name__}: "
        what = " ".join(f"{name}{error}".split())
        what = what if len(what) < 300 else f"{what[:300]}..."
        raise RequestError(key, reference, f"{place(error, reference)}{what}") from error


def place(error: BaseException, reference: str) -> str:
    """Returns the file and line of a user's code that raised an exception, or of its object: `nets.py, line 3: `."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: "
    file, _, name = reference.rpartition(":")
    path = _active.get(file)
    found = _loaded(path, name)
    files = {None if found is None or path is not None else _file_of(found), *map(str, _active.values())}
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    if lines:
        return f"{lines[-1].filename}, line {lines[-1].lineno}: "
    if (code := getattr(inspect.unwrap(found), "__code__", None) if callable(found) else None) is not None:
        return f"{code.co_filename}, line {code.co_firstlineno}: "
    if path is None:
        return ""
    text = path.read_text(errors="replace").splitlines()
    starts = [number for number, line in enumerate(text, 1) if re.match(rf"(class |def )?{name}\b", line)]
    return f"{path}, line {starts[-1]}: " if starts else f"{path}: "


def _loaded(path: Path | None, name: str) -> Any:
    """Returns an object that a config contains, or whose file has been imported; None if there is none."""
    if (kept := _objects.get((_NOTEBOOK if path is None else str(path), name))) is not None:
        return kept[0]
    modules = [module for (of, _), module in _modules.items() if of == path]
    return getattr(modules[-1], name, None) if modules else None


@contextlib.contextmanager
def imports_beside(path: Path) -> Iterator[None]:
    """Lets a file import modules from its folder. Forgets them afterwards: another file may use the same names."""
    folder, before = str(path.parent.absolute()), set(sys.modules)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(f"{folder}{os.sep}"):
                del sys.modules[name]


def changed_files(stored: Code, code: Code) -> Iterable[str]:
    """Yields the files whose content differs from what a run has stored under the same name."""
    return (file for file in code if file in stored and stored[file]["sha256"] != code[file]["sha256"])


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
