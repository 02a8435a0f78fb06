"""Optimizers with traced settings: Optax's, arranged so that each equals PyTorch's of the same name."""

import jax
import optax

from cnnjax.types import Traced

# The settings of a trial become a pytree here: inside a program they are scalars, over a population arrays.
jax.tree_util.register_dataclass(
    Traced,
    data_fields=["learning_rate", "momentum", "weight_decay", "label_smoothing", "dropout_rate", "schedule"],
    meta_fields=[],
)


def make_optimizer(name: str, settings: Traced) -> optax.GradientTransformation:
    """Returns the optimizer of a trial; its settings may be traced scalars.

    Args:
        name: 'sgd' is heavy-ball, v = momentum * v + g, w -= learning_rate * v (no dampening, no Nesterov); 'adam' is
            Kingma & Ba 2015, algorithm 1, with b1 .9, b2 .999 and epsilon 1e-8 outside the square root.
        settings: weight_decay is L2 for both: added to the gradient before any moment, as in torch.optim, not
            decoupled.
    """
    if name == "sgd":
        rule = optax.trace(decay=settings.momentum)
    elif name == "adam":
        rule = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)
    else:
        raise ValueError(name)
    return optax.chain(optax.add_decayed_weights(settings.weight_decay), rule, optax.scale(-settings.learning_rate))
