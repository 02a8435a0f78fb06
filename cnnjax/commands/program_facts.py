"""Facts about the programs of a plan, for --plan and plan.json."""

from typing import Any

from cnnjax.data import Dataset
from cnnjax.models.summary import forward_flops, parameter_count, training_flops
from cnnjax.study.axes import where_it_matters
from cnnjax.study.plan import Plan, Program
from cnnjax.training.estimate import network_of, training_images
from cnnjax.utils.text import counted


def repeated_points(plan: Plan) -> list[str]:
    """Returns a line per axis that makes points of the grid equal, so that they are not trained."""
    what = "of the grid would train identically to another"
    return [
        f"{counted(n, 'point')} {what}: {axis} matters {where_it_matters(axis)}" for axis, n in plan.repeats.items()
    ]


def describe_program(program: Program, dataset: Dataset) -> dict[str, Any]:
    """Returns the number of parameters, and the FLOPs of one forward pass and of all training."""
    network = network_of(program.static, dataset)
    return {
        "parameters": parameter_count(network, dataset.image_shape),
        "forward_flops": forward_flops(network, dataset.image_shape),
        "training_flops": training_flops(network, dataset.image_shape) * training_images(program, dataset),
    }
