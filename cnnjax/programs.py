"""Trains programs of a study in a run's folder: from the data to the last program's last epoch."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import jax

from cnnjax import models, processes
from cnnjax.chunks import Chunk, run_chunk
from cnnjax.data import Dataset, load_dataset
from cnnjax.devices import is_out_of_memory, make_mesh, pin_settings, use_every_core
from cnnjax.environment import cache_folder, describe_environment, lasting
from cnnjax.nested import differences
from cnnjax.plan import check_axes, make_plan
from cnnjax.population import DeviceData, put_data
from cnnjax.preparation import Layout, Preparation, Prepared, cut
from cnnjax.progress import Progress
from cnnjax.records import RunFolder
from cnnjax.sealed import unwritable
from cnnjax.signals import interruptibly
from cnnjax.study import Study
from cnnjax.types import Member, Plan, Program, RequestError


def load(study: Study) -> tuple[Dataset, Plan]:
    """Returns the data and the plan of a study, checked against each other, the same in all processes.

    Raises:
        RequestError: the data is not there or is damaged, or the study does not go with it.
    """
    pin_settings()
    dataset, plan = processes.raise_on_all(_load_here, study)
    sums = processes.gather(dataset.describe()["sha256"]) if processes.count() > 1 else []
    for number, found in enumerate(sums):
        if found != sums[0]:
            there, here = processes.name(number), processes.name(0)
            said = f"the data of {there} is other than that of {here} (sha256 {sums[0][:12]}...)"
            raise RequestError("data", f"{found[:12]}...", f"{said}; allowed: the same everywhere")
    return dataset, plan


def _load_here(study: Study) -> tuple[Dataset, Plan]:
    for name, precision in itertools.product(study.models, study.train.precision):
        models.build(name, 1, precision)  # what there is not is refused before any data is read
    plan = make_plan(study)
    check_axes(study, plan)
    dataset = load_dataset(study.data)
    for name in study.models:
        models.check_fits(name, dataset.image_shape)
    for batch_size in study.train.batch_size:
        if batch_size > len(dataset.train):
            raise RequestError(
                "train.batch_size",
                batch_size,
                f"allowed: at most the {len(dataset.train)} training images",
            )
        if len(study.train.drop_last) > 1 and len(dataset.train) % batch_size == 0:
            said = f"both would train alike: no example is left over by batches of {batch_size}; allowed: one value"
            raise RequestError("train.drop_last", study.train.drop_last, said)
    return dataset, plan


def prepare_jax(plan: Plan, cores: int | None = None) -> None:
    """Sets jax up for a plan, on all cores or so many. Has to come before anything uses jax."""
    use_every_core(max(len(program.members) for program in plan.programs), cores)
    enable_compilation_cache()


def enable_compilation_cache(folder: str | None = None) -> None:
    """Keeps compiled programs on disk, so that a second start does not compile again.

    Args:
        folder: where, or 'off'. None leaves what jax was told, else takes `xla` in the user's cache folder.

    Raises:
        RequestError: the folder cannot be made.
    """
    if folder == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if folder is not None:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError("--compilation_cache", folder, f"{error.strerror}; allowed: a folder, or off") from error
    there = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", folder or there or str(cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # of its whole second much is left over


@contextlib.contextmanager
def writing(folder: RunFolder) -> Iterator[None]:
    """Says in one line that a folder cannot be written."""
    try:
        yield
    except Exception as error:
        if isinstance(error, RequestError):
            raise
        how = "what is there stays valid; the same command goes on when it can be written again"
        said = unwritable(error)
        is_gone = isinstance(error, FileNotFoundError) or not (folder.path / "config.json").exists()
        if said is None and is_gone and str(folder.path) in str(error):
            said, how = "it was removed or moved while the run was in it", "the same command goes on where it is now"
        if said is None:
            raise
        raise RequestError("workdir", str(folder.path), f"{said}: {how}") from error


def write_environment(folder: RunFolder, progress: Progress) -> None:
    """Writes environment.json; one that the run had before and that differs is kept in it, and said."""
    devices = jax.devices()
    environment = describe_environment(
        {
            "devices": [str(device) for device in devices],
            "device_kind": devices[0].device_kind,
            "device_driver": devices[0].client.platform_version,
            "matmul_precision": jax.config.jax_default_matmul_precision,
        }
    )
    before = folder.read_whole("environment.json")
    if before is not None:
        earlier = before.get("earlier", [])
        if found := differences(lasting(before), lasting(environment)):
            said = "; ".join(f"{key} {there!r} then, {here!r} now" for key, (there, here) in found.items())
            progress.note(f"going on where other things hold than before: {said}")
            earlier = [*earlier, lasting(before)]
        environment |= {"earlier": earlier} if earlier else {}
    folder.write_json("environment.json", environment)


def waiting(folder: RunFolder, programs: Iterable[Program]) -> tuple[list[Program], list[Member]]:
    """Returns the programs that have a trial without a result, and the members that have."""
    programs = list(programs)
    finished = folder.finished(member for program in programs for member in program.members)

    def waits(member: Member) -> bool:
        return any(trial.id not in finished for trial in member.trials)

    left = [program for program in programs if any(map(waits, program.members))]
    return left, [member for program in left for member in program.members if waits(member)]


def run_programs(
    folder: RunFolder,
    study: Study,
    dataset: Dataset,
    programs: Sequence[Program],
    progress: Progress,
    max_members: int | None = None,
    profile: Path | None = None,
) -> None:
    """Trains programs one after another, each from its newest state on disk.

    Args:
        folder: where everything is written down.
        study: what they are of.
        dataset: its data.
        programs: those of `waiting`.
        progress: it has begun; told of every step.
        max_members: train at most this many members at a time, whatever would fit.
        profile: folder for a trace of each program's second epoch, if wanted.
    """
    mesh = make_mesh(jax.devices())
    data = put_data(dataset, study.data, mesh)
    preparation = Preparation(study, dataset, data, mesh, max_members, profile)
    for index, program in enumerate(programs, 1):
        progress.program(index, program.static, len(program.members))
        prepared = interruptibly(preparation.prepare, program, folder)
        progress.compiled(prepared.seconds)
        _run_program(folder, prepared, dataset, data, progress)
        del prepared
        jax.clear_caches()  # jax would keep every program to its end


def _run_program(folder: RunFolder, prepared: Prepared, dataset: Dataset, data: DeviceData, progress: Progress) -> None:
    program, population, pending = prepared.program, prepared.population, list(prepared.layout)
    done: Layout = []
    folder.write_layout(program.id, pending)
    while pending:
        start, stop, size = pending[0]
        chunk = Chunk(program.id, program.members[start:stop], size)
        try:
            run_chunk(folder, population, chunk, dataset, data, progress)
            done.append(pending.pop(0))
        except Exception as error:
            if not is_out_of_memory(error) or size <= population.devices:
                raise
            # The same members from their beginning, half as many at a time: equal numbers in half the memory.
            half = -(-size // (2 * population.devices)) * population.devices
            progress.note(f"out of memory with {size} members at a time; going on with {half}")
            pending = cut(pending, half)
            folder.write_layout(program.id, [*done, *pending])
