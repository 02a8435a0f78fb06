"""A tiny model and tiny studies of digits, for tests of every package."""

import copy
import functools
from typing import Any

import jax
import numpy as np
import pytest

from cnnjax.models.ladder import LADDER
from cnnjax.study.schema import Study, from_config

ROUGH = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}  # a third of the time to compile
ROUGH_FLAGS = " ".join(
    f"--{key}={int(value)}" for key, value in {"xla_force_host_platform_device_count": 1, **ROUGH}.items()
)
TINY = {
    "models": ("tiny",),
    "select": "val_loss",
    "data": {"name": "digits", "train_examples": 200, "validation": 50},
    # Whole batches, for a remainder doubles the time to compile.
    "train": {"batch_size": 50, "epochs": 2, "optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9},
}


def make_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the fixture `quick` but for the model, for as long as `monkeypatch` lasts."""

    def compile_once(*arguments: Any) -> Any:
        return _compile_once(jax.stages.Lowered.compile, *arguments)

    monkeypatch.setattr("cnnjax.training.compiler.Population", compile_once)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)  # it would drop the functions that all programs share


@functools.cache
def _compile_once(compiler: Any, *arguments: Any) -> Any:
    del compiler  # roughly compiled programs are kept apart
    from cnnjax.training.population import Population

    return Population(*arguments)


def make_rough(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the fixture `rough`, for as long as `monkeypatch` lasts."""
    monkeypatch.setattr(jax.stages.Lowered, "compile", _compile_roughly)


_compile = jax.stages.Lowered.compile


def _compile_roughly(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    return _compile(lowered, ROUGH)


def add_tiny(monkeypatch: pytest.MonkeyPatch, convolutions: bool = True) -> None:
    """As the fixture `tiny`, for as long as `monkeypatch` lasts; without convolutions that of `dense`."""
    from cnnjax.models.specs import BatchNorm, Conv, Dense, Dropout, MaxPool, Relu

    first = (Conv(4), BatchNorm(), Relu(), MaxPool(), Dense(16)) if convolutions else (Dense(8), BatchNorm())
    monkeypatch.setitem(LADDER, "tiny", (*first, Relu(), Dropout(0.25), Dense()))


def make_study(**changes: Any) -> Study:
    """A study of two epochs on 200 digits; `changes` are settings, those of a group as `group=dict(...)`."""
    config = copy.deepcopy(TINY)
    for key, value in changes.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    return from_config(config)


def logits_of(network: Any, variables: Any, images: Any, options: Any = None) -> np.ndarray:
    """Returns the logits of images, by one compiled call: layer by layer, every layer compiles alone."""
    apply = jax.jit(functools.partial(network.apply, train=False), compiler_options=options)
    return np.asarray(apply(variables, images))
