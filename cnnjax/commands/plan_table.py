"""The output of --plan: what a study would run, as a table."""

from cnnjax.analysis.columns import significant
from cnnjax.commands.program_facts import describe_program, network_of, repeated_points
from cnnjax.data import Dataset
from cnnjax.models.summary import layer_table
from cnnjax.study.plan import Plan
from cnnjax.study.schema import Study
from cnnjax.training.program import Compiler, load, prepare_jax


def plan_table(study: Study) -> str:
    """Returns the trials, programs, members, parameters, memory and FLOPs of a study as text, without training."""
    dataset, plan = load(study)
    prepare_jax(plan)
    counts = {name: count for name, count in dataset.describe()["counts"].items() if count}
    lines = [
        f"data      {dataset.name}: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()),
        *(f"          {note}" for note in dataset.notes),
        f"trials    {len(plan.trials)}: {plan.trained} trained, {len(plan.trials) - plan.trained} read off longer ones",
        *(f"left out  {line}" for line in repeated_points(plan)),
        f"programs  {len(plan.programs)}",
        "",
        "program  model       optimizer  batch  members  at a time  parameters  memory MB  training TFLOP",
    ]
    total = 0.0
    compiler = Compiler(study, dataset, plan.members)
    for program in plan.programs:
        compiled = compiler.compile(program)
        size = compiled.pending[0][-1]
        described = describe_program(program, dataset)
        total += described["training_flops"]
        static = program.static
        lines.append(
            f"{program.id:<8} {static.model:<11} {static.optimizer:<10} {static.batch_size:>5}  "
            f"{len(program.members):>7}  {size:>9}  {described['parameters']:>10,}  {compiled.memory / 1e6:>9,.0f}  "
            f"{significant(described['training_flops'] / 1e12):>14}"
        )
    lines += ["", *_convolution_lines(plan, dataset)]
    lines += ["", f"in all {significant(total / 1e12)} TFLOP of training (three times the forward pass)"]
    return "\n".join(lines)


def _convolution_lines(plan: Plan, dataset: Dataset) -> list[str]:
    """Describes how the convolutions of each network are computed, which depends on shapes and on the machine."""
    lines: dict[str, None] = {}  # an ordered set
    for program in plan.programs:
        network = network_of(program, dataset)
        methods = [row.method for row in layer_table(network, dataset.image_shape) if row.method]
        static = program.static
        lines[f"{static.model:<11} {', '.join(methods)}"] = None
    return [f"convolutions of {line}" for line in lines]
