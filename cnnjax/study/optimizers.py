"""The optimizers of a study and their arguments: those of PyTorch's arithmetic, and those of Optax by name.

The signatures of Optax's optimizers are read from its source, because importing Optax imports JAX.
"""

import ast
import dataclasses
import functools
import importlib.util
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cnnjax.study.rules import check_distinct, is_number
from cnnjax.utils.errors import RequestError, nearest

ADAM, SGD = ("adam", "adamw"), ("sgd", "sgdw")
OWN = (*ADAM, *SGD)  # with PyTorch's arithmetic; Optax's of the same names are not used
KEYS = ("momentum", "nesterov", "b1", "b2", "weight_decay")  # arguments of `OWN` that are keys of `train`
ALLOWED = f"must be {', '.join(OWN)}, or the name of an optimizer of Optax, such as lion, nadam, lamb or muon"
COLUMN = "optimizer_"  # begins the columns of arguments that have no key in `train`

Arguments = tuple[tuple[str, Any], ...]  # names and values, in the order of the names

OTHER = ...  # the default of an argument that is neither a number, a text, a bool nor None
_REFUSED = {
    "lbfgs": "it needs a line search",
    "dpsgd": "it needs the gradient of each example",
    "momo": "it needs the loss of each step",
    "momo_adam": "it needs the loss of each step",
    "polyak_sgd": "it needs the loss of each step",
    "sophia": "it needs second derivatives",
    "schedule_free_adamw": "it evaluates other weights than it trains; use train.ema",
    "schedule_free_sgd": "it evaluates other weights than it trains; use train.ema",
}


def parameters(name: str) -> Mapping[str, Any]:
    """Returns the arguments of an optimizer and their defaults, without the learning rate.

    Raises:
        KeyError: there is no such optimizer.
    """
    if name in ADAM:
        return {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
    return {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0} if name in SGD else _of_optax()[name]


@functools.cache
def _of_optax() -> dict[str, dict[str, Any]]:
    """Returns the arguments and defaults of each function of Optax that makes an optimizer of a learning rate."""
    spec = importlib.util.find_spec("optax")
    assert spec and spec.origin
    folder = Path(spec.origin).parent
    found: dict[str, dict[str, Any]] = {}
    for file in (*sorted((folder / "contrib").glob("_*.py")), folder / "_src" / "alias.py"):
        if file.stem.endswith("_test"):
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith(("_", "scale_by_")):
                arguments = dict(_signature(node.args))
                if next(iter(arguments), None) in ("learning_rate", "max_learning_rate"):
                    found[node.name] = dict([*arguments.items()][1:])
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and node.value.args:
                # nadam = functools.partial(adam, nesterov=True)
                target, base = node.targets[0], node.value.args[0]
                if isinstance(target, ast.Name) and isinstance(base, ast.Name) and base.id in found:
                    fixed = {word.arg: _literal(word.value) for word in node.value.keywords if word.arg}
                    found[target.id] = found[base.id] | fixed
    return found


def _signature(arguments: ast.arguments) -> Iterator[tuple[str, Any]]:
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + [*arguments.defaults]
    keywords = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    for argument, default in itertools.chain(zip(positional, defaults, strict=True), keywords):
        yield argument.arg, OTHER if default is None else _literal(default)


def _literal(node: ast.expr) -> Any:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return OTHER
    return value if value is None or isinstance(value, bool | int | float | str) else OTHER


def read_names(key: str, value: Any) -> tuple[str, ...]:
    """Reads the axis of optimizers.

    Raises:
        RequestError: there is no such optimizer, or it cannot be used, or a name occurs twice.
    """
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not values:
        raise RequestError(key, value, f"an axis needs at least one value; each {ALLOWED}")
    for name in values:
        if not isinstance(name, str):
            raise RequestError(key, name, ALLOWED)
        if name in _REFUSED:
            raise RequestError(key, name, f"{_REFUSED[name]}; use another optimizer")
        if name not in OWN and name not in _of_optax():
            near = nearest(name, [*OWN, *(_of_optax().keys() - _REFUSED.keys())])
            raise RequestError(key, name, f"there is no such optimizer; did you mean {near!r}?" if near else ALLOWED)
    check_distinct(key, value, values)
    return values


class ArgumentAxes(dict[str, tuple]):
    """The values of each argument. A study, which has them, is hashable."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash((*self.items(),))


def read_arguments(key: str, value: Any) -> ArgumentAxes:
    """Reads `train.optimizer_args`: for each argument, an axis of one or several values.

    Raises:
        RequestError: it is not such a mapping.
    """
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise RequestError(key, value, 'must be a mapping of arguments, as in {"b2": (0.95, 0.999), "eps": 1e-8}')
    axes = ArgumentAxes()
    for name in sorted(value):
        values = tuple(value[name]) if isinstance(value[name], list | tuple) else (value[name],)
        for each in values:
            is_text = isinstance(each, str) and re.fullmatch(r"[\w.]+", each)
            if not (each is None or isinstance(each, bool) or is_number(each) or is_text):
                if isinstance(each, str) and "(" in each:
                    raise RequestError(f"{key}.{name}", each, "arguments have no ranges; use values, as in (0.9, 0.99)")
                raise RequestError(f"{key}.{name}", each, "must be a number, True, False, None or a name")
        if not values or len({(type(each), each) for each in values}) < len(values):
            raise RequestError(f"{key}.{name}", value[name], "must be one value, or several distinct values")
        axes[name] = values
    return axes


def combinations(axes: Mapping[str, tuple]) -> tuple[Arguments, ...]:
    """Returns all combinations of the values of arguments."""
    return tuple(tuple(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))


def arguments_of(name: str, arguments: Mapping[str, Any] | Arguments) -> Arguments:
    """Returns those arguments that an optimizer takes. Numbers have the type of their defaults: 1 becomes 1.0."""
    defaults, given = parameters(name), dict(arguments)
    taken = ((argument, given[argument], defaults[argument]) for argument in sorted(given) if argument in defaults)
    return tuple((a, float(v) if isinstance(d, float) and is_number(v) else v) for a, v, d in taken)


def readable(train: Any) -> Any:
    """Returns a `TrainConfig` without the arguments that none of its optimizers takes: a study may not have them."""
    stages: tuple[Mapping[str, Any], ...] = train.stages or ({},)
    names = itertools.chain(*(read_names("", stage.get("optimizer", train.optimizer)) for stage in stages))
    taken = {argument for name in names for argument in parameters(name)}
    kept = ArgumentAxes({name: values for name, values in train.optimizer_args.items() if name in taken})
    return dataclasses.replace(train, optimizer_args=kept)


def changed(name: str, arguments: Arguments) -> Arguments:
    """Returns the arguments that differ from the optimizer's defaults."""
    return tuple((argument, value) for argument, value in arguments if value != parameters(name)[argument])


def traced(name: str, arguments: Arguments = ()) -> dict[str, float]:
    """Returns the arguments of an optimizer that a compiled program takes as scalars: numbers with a fraction.

    Of an optimizer of Optax, they are all arguments with such a default, so that other values need no other program,
    and those that the study sets in place of None. Of `OWN`, they are those that differ from the default.
    """
    given = changed(name, arguments)
    defaults = {} if name in OWN else parameters(name)
    return {argument: value for argument, value in {**defaults, **dict(given)}.items() if isinstance(value, float)}


def spec_of(name: str, arguments: Arguments) -> str:
    """Returns what a program compiles of an optimizer, as text: `rmsprop(centered=True, momentum)`.

    It has the static arguments that differ from their defaults, and the names of the traced ones whose defaults are not
    traced.
    """
    usual = traced(name)
    parts = [
        argument if isinstance(value, float) else f"{argument}={value}"
        for argument, value in changed(name, arguments)
        if not (isinstance(value, float) and argument in usual)
    ]
    return f"{name}({','.join(parts)})" if parts else name


def read_spec(spec: str) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """Returns the optimizer, the static arguments and the names of the traced arguments of a `spec_of`."""
    name, _, text = spec.removesuffix(")").partition("(")
    parts = [part.partition("=") for part in text.split(",") if part]
    static = {argument: _value(value) for argument, equals, value in parts if equals}
    also = [argument for argument, equals, _ in parts if not equals]
    return name, static, tuple(a for a in dict.fromkeys([*traced(name), *also]) if a not in static)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def row_of(name: str, arguments: Arguments) -> dict[str, Any]:
    """Returns the columns of a trial's arguments. Those of an optimizer of Optax with a key in `train` are complete."""
    columns = {argument if argument in KEYS else f"{COLUMN}{argument}": value for argument, value in arguments}
    if name in OWN:
        return columns
    defaults = {argument: parameters(name)[argument] for argument in KEYS if argument in parameters(name)}
    return {argument: None if value is OTHER else value for argument, value in defaults.items()} | columns
