"""Trains every trial of a study and reports what the evidence supports.

    python -m cnnjax.launch --config=configs/quickstart.py
    python -m cnnjax.launch --config=configs/grid.py:smoke --plan
    python -m cnnjax.launch --config=configs/grid.py --config.seeds=5,6 --config.data.augment=
    python -m cnnjax.launch --config=configs/quickstart.py --confirm=5
    python -m cnnjax.launch --config=configs/grid.py --workdir=s3://BUCKET/runs/grid
    python -m cnnjax.launch --config=configs/grid.py --coordinator=HOST:PORT --num_processes=2 --process_id=0

Every key of a config can be overridden as --config.key=value: a number, a word, None, True or
False; a comma list is a tuple, which in `models`, `seeds`, `train` and `streams` is an axis of the
grid; nothing is the empty tuple. The same command again resumes a study that was interrupted.
"""

import contextlib
from pathlib import Path

from absl import flags

from cnnjax.executors import EXECUTORS, Engine, make_engine
from cnnjax.models import ladder
from cnnjax.multihost import processes
from cnnjax.runs import remote
from cnnjax.study import overrides
from cnnjax.study.schema import Study
from cnnjax.utils import cli
from cnnjax.utils.errors import RequestError

flags.adopt_module_key_flags(overrides)
WORKDIR = overrides.WORKDIR
PLAN = flags.DEFINE_bool("plan", False, "Say what would run, and train nothing.")
COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache", None, "Folder for compiled programs (default: the user's cache folder), or off."
)
PROFILE = flags.DEFINE_bool("profile", False, "Trace each program's second epoch into the run's folder.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Train from the beginning, replacing what run the folder holds.")
CONFIRM = flags.DEFINE_integer(
    "confirm", None, "Then train the winner and two runners-up on so many fresh seeds.", lower_bound=2
)
EXECUTOR = flags.DEFINE_enum("executor", None, list(EXECUTORS), "Have workers train the programs, queued by this.")
RAY_ADDRESS = flags.DEFINE_string("ray_address", None, "HOST:PORT of a Ray cluster, or auto (default: one is started).")
CLUSTER = flags.DEFINE_string("cluster", None, "submitit's: slurm or local (default: slurm where it is there).")
SLURM = flags.DEFINE_list("slurm", [], "Parameters of SLURM's jobs: partition=gpu,gres=gpu:1,time=60.")
TASK_CPUS = flags.DEFINE_integer("task_cpus", None, "CPUs of each program's worker (default: a node's).", lower_bound=1)
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, for a study that several run; or auto: what the cluster says."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes run the study.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "The number of this one, from 0.")
COORDINATOR_TIMEOUT = flags.DEFINE_float(
    "coordinator_timeout", 60.0, "Seconds in which all processes have to be there.", lower_bound=1.0
)


def main(config_overrides: list[str]) -> None:
    """Launches the study that the flags name.

    Args:
        config_overrides: `key=value` each.

    Raises:
        RequestError: the flags, the config or an override is wrong.
    """
    study = overrides.requested_study(config_overrides)
    for flag in (COORDINATOR, EXECUTOR):
        if flag.value is not None and remote.is_url(WORKDIR.value or ""):
            allowed = f"allowed with --{flag.name}: a folder that all machines see, such as a bucket that they mount"
            raise RequestError("--workdir", WORKDIR.value, allowed)
    asked = {flag.name: flag.value for flag in (PLAN, PROFILE, OVERWRITE, CONFIRM)}
    place = COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value
    plain = study.to_dict()
    del plain["data"]["path"]  # each process's own; the data themselves are compared when they are read
    facts = {**plain, "networks": ladder.described(study.models), **asked}
    # imports jax from here on: a wrong request is answered before
    with processes.initialized(*place, facts=facts, timeout=COORDINATOR_TIMEOUT.value):
        said = launch(study)
        if processes.is_first():
            print(said)


def launch(study: Study) -> str:
    """Plans, or runs, a study as the flags say; returns what is to be said of it."""
    from cnnjax.commands import plan_table, run
    from cnnjax.training import program

    program.enable_compilation_cache(COMPILATION_CACHE.value)
    if PLAN.value:
        return plan_table.plan_table(study)
    from cnnjax.utils.progress import Progress

    if CONFIRM.value:
        from cnnjax.commands import confirm

        confirm.check_confirmable(study)
    place = WORKDIR.value or overrides.default_folder("runs")
    options = {"overwrite": OVERWRITE.value, "profile": PROFILE.value}
    with (
        Progress(is_shown=processes.is_first()) as progress,
        _engine() as engine,
        remote.at_hand(place, progress) as workdir,
    ):
        run.run(study, workdir, progress=progress, engine=engine, **options)
        said = [processes.broadcast_from_process0(lambda: _report(workdir))]
        if CONFIRM.value:
            said.append(confirm.confirm(study, workdir, CONFIRM.value, progress=progress, engine=engine))
    return "\n".join(said)


def _report(workdir: Path) -> str:
    from cnnjax.report import build_report
    from cnnjax.runs.run_dir import RunFolder
    from cnnjax.training.program import writing

    with writing(RunFolder(workdir)):
        return str(build_report(workdir))


def _engine() -> contextlib.AbstractContextManager[Engine | None]:
    """What the flags name to train the programs; None for this process."""
    if EXECUTOR.value is None:
        for flag in (RAY_ADDRESS, CLUSTER, SLURM, TASK_CPUS):
            if flag.value:
                raise RequestError(f"--{flag.name}", flag.value, "it is an option of --executor=ray or submitit")
        return contextlib.nullcontext()
    if COORDINATOR.value is not None:
        raise RequestError("--executor", EXECUTOR.value, "not possible with --coordinator")
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
