"""Losses and metrics of users: loaded from their files, and checked before training."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.study import own_code
from cnnjax.study.metrics import Metric, metrics_of
from cnnjax.study.schema import Study
from cnnjax.training.losses import load_loss
from cnnjax.utils.errors import RequestError, UnfitCode

_EXAMPLES = 4  # in a check


def load_metrics(names: Sequence[str]) -> tuple[Metric, ...]:
    """Returns the metrics of a study with their functions. Those of users also take NumPy arrays.

    Raises:
        RequestError: the file of a metric fails, or has no such function.
    """
    return metrics_of(names, lambda reference: jax.jit(_load("metrics", reference)))


def check_functions(study: Study, num_classes: int | None = None) -> None:
    """Loads the losses and metrics of users and calls each once, on made-up logits and labels.

    Args:
        study: the study.
        num_classes: the number of classes. None only loads the functions, because the data is not read yet.

    Raises:
        RequestError: a file fails or has no such function; or a function fails, does not return one number for each
            example, or as a loss does not depend on the logits.
    """
    for key, names, check in (("train.loss", study.train.loss, _check_loss), ("metrics", study.metrics, _check_metric)):
        for reference in filter(own_code.is_reference, names):
            function = _load(key, reference)
            if num_classes is not None:
                with own_code.blamed(key, reference):
                    check(function, num_classes)


def _load(key: str, reference: str) -> Callable:
    function = load_loss(reference) if key == "train.loss" else own_code.load(key, reference)
    if not callable(function):
        raise RequestError(key, reference, "it is not a function; use a function")
    return function


def _check_loss(loss: Callable, num_classes: int) -> None:
    logits, labels = _made_up(num_classes)
    targets = jax.nn.one_hot(labels, num_classes)
    found = _check_shape(loss, logits, targets)
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise UnfitCode(f"it returns {found.dtype}, which has no gradient; return floats")
    if not jax.jit(jax.grad(lambda logits: loss(logits, targets).sum()))(logits).any():
        raise UnfitCode("its gradient with respect to the logits is zero; use a differentiable function of the logits")


def _check_metric(metric: Callable, num_classes: int) -> None:
    _check_shape(metric, *_made_up(num_classes))


def _check_shape(function: Callable, *arrays: Any) -> Any:
    found = jax.eval_shape(function, *arrays)
    if getattr(found, "shape", None) != (_EXAMPLES,):
        what = f"shape {list(found.shape)}" if hasattr(found, "shape") else type(found).__name__
        problem = f"it returns {what} for {_EXAMPLES} examples; return one number for each example, shape [N]"
        raise UnfitCode(problem)
    return found


def _made_up(num_classes: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(_EXAMPLES, num_classes)).astype(np.float32)
    return jnp.array(logits), jnp.arange(_EXAMPLES) % num_classes
