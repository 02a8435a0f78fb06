"""Checks that a study's optimizers train its networks, before anything is trained."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cnnjax.models.network import build_network, variable_shapes
from cnnjax.study.metrics import of_epochs
from cnnjax.study.parameter_groups import read_groups
from cnnjax.study.plan import Program, make_plan
from cnnjax.study.schema import Study
from cnnjax.training.optimizers import make_optimizer, parameter_names
from cnnjax.training.stacking import stack_members, table_size
from cnnjax.utils.errors import RequestError
from cnnjax.utils.text import first_line


def check_optimizers(study: Study) -> None:
    """Raises RequestError if Optax refuses an optimizer or its arguments. Traces one step, and computes nothing."""
    for program in make_plan(study).programs:
        _check_optimizer(program, study)


def _check_optimizer(program: Program, study: Study) -> None:
    shapes = {"conv0": {"kernel": (3, 3, 3, 8), "bias": (8,)}, "dense0": {"kernel": (10, 32), "bias": (10,)}}
    params = {layer: {leaf: jnp.zeros(shape) for leaf, shape in of.items()} for layer, of in shapes.items()}
    measures, tables = of_epochs(study.measures), table_size(program.members[0].trials[-1].stages, steps=1)
    hparams, _ = stack_members(program.members[:1], tables, measures[0], study.split_seeds, measures)

    def step(hparams: Any, params: optax.Params) -> optax.Params:
        optimizer = make_optimizer(program.static.optimizer, jax.tree.map(lambda leaf: leaf[0, 0], hparams))
        updates, _ = optimizer.update(params, optimizer.init(params), params)
        return optax.apply_updates(params, updates)

    try:
        jax.eval_shape(step, hparams, params)
    except Exception as error:  # code of Optax may raise anything
        problem = f"Optax refuses it with these arguments ({first_line(error)[:160]}); use others"
        raise RequestError("train.optimizer", program.static.optimizer, problem) from error


def check_groups(study: Study, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Raises RequestError if a pattern of `train.groups` matches no parameter of any model.

    Args:
        study: the study.
        image_shape: (H, W, C).
        num_classes: number of logits.
    """
    train: Any = study.train  # a type checker does not know its fields
    patterns = {pattern for groups in train.groups for pattern in read_groups(groups)}
    networks = [build_network(name, num_classes, image_shape=image_shape) for name in study.models]
    params = [variable_shapes(network, image_shape)["params"] for network in networks]
    names = list(dict.fromkeys(name for each in params for name in parameter_names(each)))
    for pattern in sorted(patterns):
        if not any(re.search(pattern, name) for name in names):
            some = f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
            raise RequestError("train.groups", pattern, f"it matches no parameter; the names are {some}")
