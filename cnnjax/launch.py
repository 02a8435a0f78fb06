"""Trains every trial of a study and reports what the evidence supports.

    python -m cnnjax.launch --config=configs/quickstart.py
    python -m cnnjax.launch --config=configs/grid.py:smoke --plan
    python -m cnnjax.launch --config=configs/grid.py --config.seeds=5,6 --config.data.augment=
    python -m cnnjax.launch --config=configs/quickstart.py --confirm=5
    python -m cnnjax.launch --config=configs/quickstart.py --until=decided --max_seeds=20 --margin=0.005
    python -m cnnjax.launch --config=configs/grid.py --workdir=s3://BUCKET/runs/grid
    python -m cnnjax.launch --config=configs/grid.py --coordinator=HOST:PORT --num_processes=2 --process_id=0

Override any key of the config with --config.key=value. A value is a number, a word, None, True or
False. A comma list is a tuple; in `models`, `seeds`, `train`, `streams` and the axes of `data` it
is an axis of the grid: --config.data.augment=none,flip,flip+crop. An empty value is the empty
tuple. Run the same command again to resume an interrupted study.
"""

import contextlib
from collections.abc import Iterator

from absl import flags

from cnnjax.executors import EXECUTORS, Engine, make_engine
from cnnjax.models import ladder
from cnnjax.multihost import processes
from cnnjax.report.process import report_process
from cnnjax.runs import remote
from cnnjax.study import flags as study_flags
from cnnjax.study.schema import Study
from cnnjax.utils import cli
from cnnjax.utils.errors import RequestError
from cnnjax.utils.paths import expanded

flags.adopt_module_key_flags(study_flags)
WORKDIR = study_flags.WORKDIR


class _PlanParser(flags.ArgumentParser):
    """Parses --plan, --plan=measure and --noplan."""

    def parse(self, argument: str) -> str | None:
        """Returns estimate, measure, or None."""
        known = {"true": "estimate", "measure": "measure", "false": None}
        if argument not in known:
            raise ValueError("use --plan, --plan=measure or --noplan")
        return known[argument]


PLAN = flags.DEFINE(
    _PlanParser(),
    "plan",
    None,
    "Print what would run, and about how long; --plan=measure compiles and times a few steps of each program first.",
    boolean=True,
)
COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache", None, "Folder for compiled programs (default: the user's cache folder), or off."
)
PROFILE = flags.DEFINE_bool("profile", False, "Write a trace of each program's second epoch into the run's folder.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Delete the run in the folder and train from the beginning.")
CONFIRM = flags.DEFINE_integer(
    "confirm", None, "Train the winner and two runners-up on this number of fresh seeds afterwards.", lower_bound=2
)
UNTIL = flags.DEFINE_enum(
    "until", None, ["decided"], "Add seeds to the configurations that may still be the best, until one is decided."
)
MAX_SEEDS = flags.DEFINE_integer("max_seeds", None, "With --until: the most seeds of a configuration (default: 20).")
MARGIN = flags.DEFINE_float("margin", None, "With --until: a difference that does not matter; 0.005 is half a point.")
EXECUTOR = flags.DEFINE_enum("executor", None, list(EXECUTORS), "Train the programs on workers of this executor.")
RAY_ADDRESS = flags.DEFINE_string("ray_address", None, "HOST:PORT of a Ray cluster, or auto (default: start one).")
CLUSTER = flags.DEFINE_string("cluster", None, "Cluster of submitit: slurm or local (default: slurm if installed).")
SLURM = flags.DEFINE_list("slurm", [], "Parameters of SLURM jobs: partition=gpu,gres=gpu:1,time=60.")
TASK_CPUS = flags.DEFINE_integer("task_cpus", None, "CPUs of each worker (default: all of a node).", lower_bound=1)
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0 if several processes run the study; auto asks the cluster."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "The number of processes that run the study.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "The index of this process, from 0.")
COORDINATOR_TIMEOUT = flags.DEFINE_float(
    "coordinator_timeout", 60.0, "Seconds within which all processes must connect.", lower_bound=1.0
)


def main(config_overrides: list[str]) -> None:
    """Launches the study of the flags and prints the summary.

    Args:
        config_overrides: config overrides, each `key=value`.

    Raises:
        RequestError: a flag, the config or an override is invalid.
    """
    study = study_flags.requested_study(config_overrides)
    for flag in (COORDINATOR, EXECUTOR):
        if flag.value is not None and remote.is_url(WORKDIR.value or ""):
            needed = f"must be a folder that all machines see with --{flag.name}; mount the bucket"
            raise RequestError("--workdir", WORKDIR.value, needed)
    for name, value in ((MAX_SEEDS.name, MAX_SEEDS.value), (MARGIN.name, MARGIN.value)):
        if value is not None and UNTIL.value is None:
            raise RequestError(f"--{name}", value, "it needs --until=decided")
    asked = {flag.name: flag.value for flag in (PLAN, PROFILE, OVERWRITE, CONFIRM, UNTIL, MAX_SEEDS, MARGIN)}
    place = COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value
    plain = study.to_dict()
    del plain["data"]["path"]  # may differ between processes; the data is compared by its fingerprint
    facts = {**plain, "networks": ladder.described(study.models), **asked}
    # Imports jax from here on; an invalid request has failed before.
    with processes.initialized(*place, facts=facts, timeout=COORDINATOR_TIMEOUT.value):
        for said in plan(study) if PLAN.value else [launch(study)]:
            if processes.is_first():
                print(said, flush=True)


def plan(study: Study) -> Iterator[str]:
    """Yields the lines of --plan."""
    from cnnjax.commands import plan_table

    place = WORKDIR.value or study_flags.default_folder("runs")
    is_unread = OVERWRITE.value or remote.is_url(place)  # a store would have to be fetched first
    workdir = None if is_unread else expanded("workdir", place)
    if PLAN.value == "measure":
        from cnnjax.training import program

        program.enable_compilation_cache(COMPILATION_CACHE.value)
    return plan_table.plan_lines(study, workdir, measure=PLAN.value == "measure")


def launch(study: Study) -> str:
    """Runs the study. Returns the summary to print."""
    with contextlib.ExitStack() as stack:
        build_report = stack.enter_context(report_process())  # before the imports, which take seconds
        from cnnjax.commands import launch
        from cnnjax.training import program
        from cnnjax.utils.progress import Progress

        program.enable_compilation_cache(COMPILATION_CACHE.value)
        return launch.launch(
            study,
            WORKDIR.value or study_flags.default_folder("runs"),
            progress=stack.enter_context(Progress(is_shown=processes.is_first())),
            overwrite=OVERWRITE.value,
            profile=PROFILE.value,
            confirm=CONFIRM.value,
            until=UNTIL.value,
            max_seeds=MAX_SEEDS.value,
            margin=MARGIN.value,
            engine=stack.enter_context(_engine()),
            build_report=build_report,
        )


def _engine() -> contextlib.AbstractContextManager[Engine | None]:
    """Returns the engine of --executor; None trains in this process."""
    if EXECUTOR.value is None:
        for flag in (RAY_ADDRESS, CLUSTER, SLURM, TASK_CPUS):
            if flag.value:
                raise RequestError(f"--{flag.name}", flag.value, "it needs --executor=ray or --executor=submitit")
        return contextlib.nullcontext()
    if COORDINATOR.value is not None:
        raise RequestError("--executor", EXECUTOR.value, "it cannot be combined with --coordinator")
    return make_engine(
        EXECUTOR.value,
        cpus=TASK_CPUS.value,
        ray_address=RAY_ADDRESS.value,
        cluster=CLUSTER.value,
        slurm=SLURM.value,
        compilation_cache=COMPILATION_CACHE.value,
    )


if __name__ == "__main__":
    cli.run(main)
