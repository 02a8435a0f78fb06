"""Runs a study in a folder: resumes what is there, trains what is missing, records everything, writes the report."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from cnnjax import models
from cnnjax.chunks import Chunk, run_chunk
from cnnjax.data import Dataset, load_dataset
from cnnjax.data.cache import cache_folder
from cnnjax.data.images import thumbnails
from cnnjax.devices import is_out_of_memory, make_mesh, use_every_core
from cnnjax.environment import describe_environment, lasting
from cnnjax.lock import locked
from cnnjax.plan import make_plan
from cnnjax.population import DeviceData, put_data
from cnnjax.preparation import Layout, Preparation, Prepared, cut
from cnnjax.progress import Progress
from cnnjax.records import RunFolder, describe_plan, differences
from cnnjax.report import build_report
from cnnjax.sealed import unwritable
from cnnjax.signals import interruptibly
from cnnjax.study import Study, from_config
from cnnjax.types import Plan, Program, RequestError


def run(
    study: Study,
    workdir: Path,
    *,
    progress: Progress,
    overwrite: bool = False,
    max_members: int | None = None,
    profile: bool = False,
) -> Path:
    """Trains every trial of a study that has no result yet, and builds the report.

    Args:
        study: what to train.
        workdir: the run's folder: new, or that of the same study (which is resumed).
        progress: told of every step.
        overwrite: delete what another study left in the folder.
        max_members: train at most this many members at a time, whatever would fit.
        profile: write a trace of each program's second epoch into the folder `profile`.

    Returns:
        The report's index.html.

    Raises:
        RequestError: the folder, the data or the study does not allow it (nothing was written or trained), or the
            folder can no longer be written.
    """
    folder = RunFolder(workdir)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_writing(folder))
        is_run = folder.read_whole("config.json") is not None
        if is_run:  # another process in it is found out before anything is read
            stack.enter_context(locked(workdir))
        is_new = _check_folder(folder, study, overwrite)
        dataset, plan = _load(study)
        if not is_run:
            workdir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(workdir))
            is_new = _check_folder(folder, study, overwrite)
        _prepare_jax(plan)
        if is_new:
            folder.clear()
        _start(folder, study, dataset, plan, progress)
        _run_programs(folder, study, dataset, plan, progress, max_members, profile)
        return build_report(workdir)


def _run_programs(
    folder: RunFolder,
    study: Study,
    dataset: Dataset,
    plan: Plan,
    progress: Progress,
    max_members: int | None,
    profile: bool,
) -> None:
    """Runs the programs that have a trial without a result."""
    finished = folder.finished(member for program in plan.programs for member in program.members)
    waiting = [p for p in plan.programs if any(t.id not in finished for m in p.members for t in m.trials)]
    if not waiting:
        progress.note(f"{folder.path} is finished: {len(plan.trials)} trials; building its report again")
        return
    members = [m for p in waiting for m in p.members if any(t.id not in finished for t in m.trials)]
    images = sum(member.epochs for member in members) * len(dataset.train)
    progress.begin(len(waiting), len(members), images)
    mesh = make_mesh(jax.local_devices())
    data = put_data(dataset, study.data, mesh)
    preparation = Preparation(study, dataset, data, mesh, max_members, folder.path / "profile" if profile else None)
    try:
        for index, program in enumerate(waiting, 1):
            progress.program(index, program.static, len(program.members))
            prepared = interruptibly(preparation.prepare, program, folder)
            progress.compiled(prepared.seconds)
            _run_program(folder, prepared, dataset, data, progress)
            del prepared
            jax.clear_caches()  # jax would keep every program to its end
    finally:
        progress.end()


@contextlib.contextmanager
def _writing(folder: RunFolder) -> Iterator[None]:
    """Says in one line that a folder cannot be written."""
    try:
        yield
    except Exception as error:
        said = None if isinstance(error, RequestError) else unwritable(error)
        if said is None:
            raise
        how = "what is there stays valid; the same command goes on when it can be written again"
        raise RequestError("workdir", str(folder.path), f"{said}: {how}") from error


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


def plan_table(study: Study) -> str:
    """Returns what a study would run, as text: trials, programs, members, parameters, memory, FLOPs. Trains nothing."""
    dataset, plan = _load(study)
    _prepare_jax(plan)
    mesh = make_mesh(jax.local_devices())
    data = put_data(dataset, study.data, mesh)
    counts = {name: count for name, count in dataset.describe()["counts"].items() if count}
    lines = [
        f"data      {dataset.name}: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()),
        f"trials    {len(plan.trials)}: {plan.trained} trained, {len(plan.trials) - plan.trained} read off longer ones",
        f"programs  {len(plan.programs)}",
        "",
        "program  model       optimizer  batch  members  at a time  parameters  memory GB  training PFLOP",
    ]
    total = 0.0
    preparation = Preparation(study, dataset, data, mesh)
    for program in plan.programs:
        prepared = preparation.prepare(program)
        size = prepared.layout[0][-1]
        described = _describe_program(program, dataset)
        total += described["training_flops"]
        static = program.static
        lines.append(
            f"{program.id:<8} {static.model:<11} {static.optimizer:<10} {static.batch_size:>5}  "
            f"{len(program.members):>7}  {size:>9}  {described['parameters']:>10,}  {prepared.memory / 1e9:>9.2f}  "
            f"{described['training_flops'] / 1e15:>14.4f}"
        )
    lines += ["", *_convolution_lines(plan, dataset)]
    lines += ["", f"in all {total / 1e15:.4f} PFLOP of training (three times the forward pass)"]
    return "\n".join(lines)


def _convolution_lines(plan: Plan, dataset: Dataset) -> list[str]:
    """How each network's convolutions are computed, which depends on their shapes and on this machine."""
    lines: dict[str, None] = {}  # an ordered set
    for program in plan.programs:
        network = _network(program, dataset)
        methods = [row.method for row in models.layer_table(network, dataset.image_shape) if row.method]
        static = program.static
        lines[f"{static.model:<11} {', '.join(methods)}"] = None
    return [f"convolutions of {line}" for line in lines]


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


def _prepare_jax(plan: Plan) -> None:
    use_every_core(max(len(program.members) for program in plan.programs))
    enable_compilation_cache()


def _load(study: Study) -> tuple[Dataset, Plan]:
    """The data and the plan of a study, checked against each other."""
    for name, precision in itertools.product(study.models, study.train.precision):
        models.build(name, 1, precision)  # what there is not is refused before any data is read
    dataset, plan = load_dataset(study.data), make_plan(study)
    for name in study.models:
        models.check_fits(name, dataset.image_shape)
    for batch_size in study.train.batch_size:
        if batch_size > len(dataset.train):
            raise RequestError(
                "train.batch_size",
                batch_size,
                f"allowed: at most the {len(dataset.train)} training images",
            )
    return dataset, plan


def _check_folder(folder: RunFolder, study: Study, overwrite: bool) -> bool:
    """Whether the folder starts anew; raises RequestError if it holds something else."""
    if overwrite:
        return folder.check_overwritable()
    found = folder.read_config()
    if found is None:
        return False
    try:
        there = from_config(found).to_dict()
    except RequestError as error:
        raise RequestError("workdir", str(folder.path), f"its config.json is no study ({error})") from error
    differing = [
        f"{key} ({theirs!r} there, {ours!r} here)"
        for key, (theirs, ours) in differences(there, study.to_dict()).items()
    ]
    if differing:
        raise RequestError(
            "workdir",
            str(folder.path),
            f"it holds another study, which differs in {', '.join(differing)}; "
            "choose another folder, or --overwrite it",
        )
    return False


def _start(folder: RunFolder, study: Study, dataset: Dataset, plan: Plan, progress: Progress) -> None:
    """Writes what is known before training; config.json first, for it makes the folder a run's."""
    if folder.read_config() is None:
        folder.write_json("config.json", study.to_dict())
    folder.remove_unfinished()
    data = dataset.describe()
    before = folder.read_whole("data.json")
    if before is not None and before.get("sha256") != data["sha256"]:
        what = f"the data is not what its trials trained on (sha256 {str(before.get('sha256'))[:12]}... there"
        how = "bring the data back, choose another folder, or --overwrite it"
        raise RequestError("workdir", str(folder.path), f"{what}, {data['sha256'][:12]}... here); {how}")
    folder.write_json("data.json", data)
    _write_environment(folder, progress)
    if folder.read_whole("plan.json") is None:
        folder.write_json("plan.json", describe_plan(plan, [_describe_program(p, dataset) for p in plan.programs]))
    folder.write_predictions("labels", labels=dataset.test.labels)
    folder.write_predictions("images", images=thumbnails(dataset.test.images))


def _write_environment(folder: RunFolder, progress: Progress) -> None:
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


def _network(program: Program, dataset: Dataset) -> models.Network:
    static = program.static
    return models.build(static.model, len(dataset.classes), static.arithmetic, static.convolution)


def _describe_program(program: Program, dataset: Dataset) -> dict[str, Any]:
    network = _network(program, dataset)
    images = sum(member.epochs for member in program.members) * len(dataset.train)
    return {
        "parameters": models.parameter_count(network, dataset.image_shape),
        "forward_flops": models.forward_flops(network, dataset.image_shape),
        "training_flops": models.training_flops(network, dataset.image_shape) * images,
    }
