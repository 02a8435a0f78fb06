"""Trains the programs of a study: plans it, loads its data, and trains the members of each program."""

import contextlib
import importlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from cnnjax.data import Dataset
from cnnjax.data.load import load_checked
from cnnjax.models.conv import kernels
from cnnjax.models.ladder import check_convolution, check_precision
from cnnjax.multihost import processes
from cnnjax.runs.environment import comparable, describe_environment
from cnnjax.runs.program_records import Folder
from cnnjax.runs.run_dir import RunFolder
from cnnjax.runs.speeds import add_speed
from cnnjax.study.plan import Member, Plan, Program, check_axes, make_plan
from cnnjax.study.schema import Study
from cnnjax.training.checks import check_code, check_optimizers, check_with_data
from cnnjax.training.compiler import Compiled, Compiler, Stored, split_layout
from cnnjax.training.device_data import DeviceData
from cnnjax.training.devices import is_out_of_memory, pin_settings, use_every_core
from cnnjax.training.estimate import describe_speed
from cnnjax.training.layout import useful_devices
from cnnjax.training.loop import run_members
from cnnjax.training.machine import this_machine
from cnnjax.training.work import MemberBatch
from cnnjax.utils.errors import RequestError, unwritable
from cnnjax.utils.paths import cache_folder, make_folder
from cnnjax.utils.progress import Progress
from cnnjax.utils.tree import differences


def load_plan(study: Study, earlier: Sequence[Study] = ()) -> Plan:
    """Returns the plan of a study, equal in all processes. Call `own_code.prepare` before.

    Args:
        study: the study.
        earlier: studies that the same run has asked for before.

    Raises:
        RequestError: the study is not valid.
    """

    def here() -> Plan:
        check_code(study)
        if "tf32" in study.train.precision:
            check_precision("tf32", jax.default_backend())
        if "pallas" in study.train.convolution:
            check_convolution("pallas", jax.default_backend())
        plan = make_plan(study, earlier)
        check_axes(study, plan)
        return plan

    return processes.raise_on_all(here)


def load_data(study: Study, earlier: Sequence[Study] = ()) -> Dataset:
    """Returns the dataset of a study, checked against it and equal in all processes. Call `prepare_jax` before.

    Arguments and errors are those of `load_plan`, and of `data.load.load_checked`.
    """

    def here() -> Dataset:
        check_optimizers(study)
        dataset = load_checked(study, earlier, identify=True)
        check_with_data(study, dataset)
        return dataset

    pin_settings()
    dataset = processes.raise_on_all(here)
    sums = processes.gather(dataset.describe()["sha256"]) if processes.count() > 1 else []
    for number, found in enumerate(sums):
        if found != sums[0]:
            problem = f"the data of {processes.name(number)} and {processes.name(0)} differ (sha256 {sums[0][:12]}...)"
            raise RequestError("data", f"{found[:12]}...", f"{problem}; use the same data on all processes")
    return dataset


def prepare_jax(plan: Plan, cores: int | None = None) -> str | None:
    """Configures JAX for a plan, on all cores or the given number. Call it before anything uses JAX.

    Returns:
        A line that says so if that is too late, because JAX has been used with fewer devices; else None.

    Raises:
        RequestError: this machine lacks a method of the plan's convolutions.
    """
    enable_compilation_cache()
    too_late = use_every_core(useful_devices(plan.programs, cores), cores)
    if any(program.static.convolution == "kernels" for program in plan.programs):
        check_convolution("kernels", jax.default_backend())
        kernels.load()
    return too_late


def enable_compilation_cache(folder: str | None = None) -> None:
    """Keeps compiled programs on disk, so that a second start does not compile them again.

    Args:
        folder: the directory of the cache, or 'off'. None stands for the directory that JAX is configured with, or else
            for `xla` in the user's cache directory.

    Raises:
        RequestError: the directory cannot be made.
    """
    if folder == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if folder is not None:
        make_folder("--compilation_cache", Path(folder))
    before = jax.config.jax_compilation_cache_dir
    folder = folder or before or str(cache_folder() / "xla")
    if folder != before:
        jax.config.update("jax_compilation_cache_dir", folder)
        compilation_cache.reset_cache()  # a process that has compiled without a cache would never use one
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # the default of 1 s leaves many programs out


@contextlib.contextmanager
def writing(folder: RunFolder) -> Iterator[None]:
    """Raises a RequestError, one line, if the run's directory cannot be written."""
    try:
        yield
    except Exception as error:
        if isinstance(error, RequestError):
            raise
        problem, advice = (
            unwritable(error),
            "what is there is valid; run the same command again when it can be written",
        )
        is_gone = isinstance(error, FileNotFoundError) or not (folder.path / "config.json").exists()
        if problem is None and is_gone and str(folder.path) in str(error):
            problem, advice = (
                "it was removed or moved while the run was in it",
                "run the same command again with its new path",
            )
        if problem is None:
            raise
        raise RequestError("workdir", str(folder.path), f"{problem}; {advice}") from error


def write_environment(folder: Folder, progress: Progress) -> None:
    """Writes environment.json. If the run had another environment before, keeps it under `earlier` and notes it."""
    devices = jax.devices()
    environment = describe_environment(
        {
            "devices": [str(device) for device in devices],
            "device_kind": devices[0].device_kind,
            "device_driver": devices[0].client.platform_version,
            "matmul_precision": jax.config.jax_default_matmul_precision,
        }
    )
    before = folder.read_if_intact("environment.json")
    if before is not None:
        earlier = before.get("earlier", [])
        if found := differences(comparable(before), comparable(environment)):
            changes = "; ".join(f"{key} was {old!r}, is {new!r}" for key, (old, new) in found.items())
            progress.note(f"the environment has changed since the run started: {changes}")
            earlier = [*earlier, comparable(before)]
        environment |= {"earlier": earlier} if earlier else {}
    folder.write_json("environment.json", environment)


def run_programs(
    folder: RunFolder,
    compiler: Compiler,
    members: Mapping[str, Member],
    programs: Sequence[Program],
    progress: Progress,
    write_views: bool = True,
) -> None:
    """Trains programs one after another, each from its newest checkpoint.

    Args:
        folder: the run's directory.
        compiler: of the study.
        members: all members of the plan by id.
        programs: those that `waiting_programs` returned.
        progress: the display, after `begin`.
        write_views: whether to write the run's views of the records when a program ends.
    """

    def stored(program: str) -> Stored:
        return folder.read_layout(program), folder.read_mesh(program)

    # Importing Orbax takes half a second, in which the first program compiles.
    threading.Thread(target=importlib.import_module, args=("cnnjax.training.checkpoints",)).start()
    with contextlib.closing(compiler.compile_all(programs, members, stored)) as ready:
        for index, program in enumerate(programs, 1):
            static = program.static
            progress.program(index, static.model, static.optimizer, static.batch_size, len(program.members))
            compiled = next(ready)
            progress.compiled(compiled.seconds)
            _run_program(folder, compiled, members, compiler.dataset, compiler.data, progress)
            if write_views:
                folder.write_views()
            del compiled
    jax.clear_caches()  # JAX would keep every program until it exits


def _run_program(
    folder: RunFolder,
    compiled: Compiled,
    members: Mapping[str, Member],
    dataset: Dataset,
    data: DeviceData,
    progress: Progress,
) -> None:
    program, population = compiled.program, compiled.population
    asked = {member.id: member for member in program.members}
    done, pending = list(compiled.done), list(compiled.pending)
    folder.write_layout(program.id, [*done, *pending], population.mesh_shape)
    while pending:
        ids, size = pending[0]
        of_batch = tuple(asked[member] for member in ids if member in asked)
        batch = MemberBatch(program.id, tuple(members[member] for member in ids), size, of_batch)
        try:
            trained = run_members(folder, population, batch, dataset, data, progress)
            done.append(pending.pop(0))
            if trained.seconds and processes.is_first():
                entry = describe_speed(program.static, dataset, this_machine(size), len(batch.members))
                speed = trained.images / trained.seconds
                add_speed(entry._replace(images_per_second=speed, compile_seconds=compiled.seconds))
        except Exception as error:
            if not is_out_of_memory(error) or size <= population.devices:
                raise
            # Train the members again from the beginning, half as many at a time: the same results in half the memory.
            half = -(-size // (2 * population.devices)) * population.devices
            progress.note(f"out of memory with {size} members at a time; going on with {half}")
            pending = split_layout(pending, half)
            folder.write_layout(program.id, [*done, *pending], population.mesh_shape)
