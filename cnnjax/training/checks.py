"""Checks of a study before training: its own code, its optimizers, and both against its data.

`launch` and `--plan` share them. They import jax only for a study that needs it, because a plan does without.
"""

from typing import Any

from cnnjax.data import Dataset
from cnnjax.models.ladder import find_model
from cnnjax.study import augmentation, own_code
from cnnjax.study.optimizers import OWN
from cnnjax.study.parameter_groups import NONE
from cnnjax.study.schedules import check_own
from cnnjax.study.schema import Study


def check_code(study: Study) -> None:
    """Imports the models and functions of a study. Call `own_code.prepare` before.

    Raises:
        RequestError: there is no such model, or a file fails or lacks the name.
    """
    for name in study.models:
        find_model(name)
    check_own(study.train.schedules)
    augmentation.load_functions(study.data.augment)
    if _has_functions(study):
        from cnnjax.training.own_functions import check_functions

        check_functions(study)


def check_optimizers(study: Study) -> None:
    """Raises RequestError if Optax refuses an optimizer of a study. It uses JAX: call `prepare_jax` before."""
    train: Any = study.train  # a type checker does not know its fields
    if not {*train.optimizer, *(stage.get("optimizer", OWN[0]) for stage in train.stages)} <= {*OWN}:
        from cnnjax.training.optimizer_checks import check_optimizers

        check_optimizers(study)


def check_with_data(study: Study, dataset: Dataset) -> None:
    """Raises RequestError if own functions or groups of parameters do not fit the data. Call `prepare_jax` before."""
    train: Any = study.train
    shape, num_classes = dataset.image_shape, len(dataset.classes)
    if _has_functions(study):
        from cnnjax.training.own_functions import check_functions

        check_functions(study, num_classes)
    if {*train.groups} != {NONE}:
        from cnnjax.training.optimizer_checks import check_groups

        check_groups(study, shape, num_classes)
    if augmentation.own_functions(study.data.augment):
        from cnnjax.training.augment.own import check_augmentations

        check_augmentations(study, shape, num_classes)


def _has_functions(study: Study) -> bool:
    return any(map(own_code.is_reference, (*study.train.loss, *study.metrics)))
