"""Trains one chunk of a program's members to the end, writing down everything on the way."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cnnjax import models
from cnnjax.analysis.metrics import classification
from cnnjax.data import Dataset
from cnnjax.devices import get
from cnnjax.population import DeviceData, Population
from cnnjax.progress import Progress
from cnnjax.records import RunFolder
from cnnjax.settings import Settings
from cnnjax.signals import interruptibly
from cnnjax.train import EpochMetrics, State
from cnnjax.trial_rows import trial_row
from cnnjax.types import Member, Streams

if TYPE_CHECKING:
    from cnnjax.checkpoints import Checkpoints

_OPERATIONS_TO_COMPILE = 2e12  # that a CPU of two cores does while it compiles a program


class Chunk(NamedTuple):
    """Members that train together, filled up to `size` with repetitions of the first."""

    program: str
    members: tuple[Member, ...]
    size: int

    @property
    def filled(self) -> list[Member]:
        """The members as the program sees them."""
        return [*self.members, *[self.members[0]] * (self.size - len(self.members))]


class _Work(NamedTuple):
    """A chunk, and all that its training reads and writes."""

    folder: RunFolder
    population: Population
    chunk: Chunk
    dataset: Dataset
    data: DeviceData
    progress: Progress
    settings: Settings
    streams: Streams
    stops: list[int]  # epochs in which a trial ends
    lines: dict[tuple[str, int], dict[str, Any]]  # of metrics.jsonl, by member and epoch
    left: list[int]  # one number: epochs that the progress expects of all members together


class _Moment(NamedTuple):
    """A chunk's members after some of their epochs."""

    state: State
    epoch: int
    seconds: float  # that the epochs took


def run_chunk(
    folder: RunFolder,
    population: Population,
    chunk: Chunk,
    dataset: Dataset,
    data: DeviceData,
    progress: Progress,
) -> None:
    """Trains a chunk from its newest checkpoint, or its beginning, to its last epoch.

    The order of writing makes a kill harmless at any instant: metrics before the checkpoint that makes them final,
    a trial's row after the checkpoint of its epoch. What is newer than the restored checkpoint is dropped from the
    metrics and written again, with the same numbers.
    """
    members = chunk.members
    finished = folder.finished(members)
    missing = [trial.epochs for member in members for trial in member.trials if trial.id not in finished]
    if not missing:
        return
    # orbax takes a second to import: a plan does without
    from cnnjax.checkpoints import Checkpoints

    settings, streams = population.stack(chunk.filled)
    stops = sorted({trial.epochs for member in members for trial in member.trials})
    work = _Work(folder, population, chunk, dataset, data, progress, settings, streams, stops, {}, [0])
    interruptibly(population.compile, settings, streams, data)
    folder.update_plan(chunk.program, population.compiled)
    checkpoints = Checkpoints(folder.checkpoints(chunk.program, members[0].id, members[-1].id), population.keep, stops)
    try:
        now = _begin(work, checkpoints, min(missing))
        work.lines.update(_drop_newer_metrics(folder, members, now.epoch))
        work.left[0] = sum(m.epochs for m in members if any(trial.id not in finished for trial in m.trials))
        _expect(work, [m for m in members if m.epochs > now.epoch], now.epoch)
        while True:
            if now.epoch in stops:
                _record_trials(work, now)
            if now.epoch == stops[-1]:
                checkpoints.keep_only(stops)
                break
            now = _train(work, now)
            meta = {"epoch": now.epoch, "seconds": now.seconds, "members": [m.id for m in chunk.filled]}
            checkpoints.save(now.epoch, now.state, meta)
            if now.epoch in stops or progress.on_checkpoint is not None:
                checkpoints.wait()
            if progress.on_checkpoint is not None:
                progress.on_checkpoint()
    finally:
        checkpoints.close()


def _begin(work: _Work, checkpoints: "Checkpoints", most: int) -> _Moment:
    """The newest state on disk that is whole, has all its metrics and is not behind `most`; or the beginning."""
    recorded = work.folder.recorded().epochs
    abstract = work.population.abstract_state(work.settings, work.streams)
    while restored := checkpoints.restore(abstract, most, work.progress.note):
        state, meta = restored
        last = np.maximum(*get((state.diverged, state.epoch))).clip(max=meta["epoch"])
        lost = [
            epoch
            for member, ran in zip(work.chunk.members, last, strict=False)
            for epoch in range(1, int(ran) + 1)
            if epoch not in recorded.get(member.id, ())
        ]
        if not lost:
            return _Moment(state, meta["epoch"], meta["seconds"])
        most = min(lost) - 1
        work.progress.note(f"metrics.jsonl lacks epoch {min(lost)}; going on from the state before it")
    return _Moment(interruptibly(work.population.init, work.settings, work.streams), 0, 0.0)


def _train(work: _Work, now: _Moment) -> _Moment:
    """Trains a chunk by one compiled call, up to the next stop at most, and writes its metrics down."""
    population = work.population
    state, epoch, seconds = now
    next_stop = min(stop for stop in work.stops if stop > epoch)
    diverged, stage = get((state.diverged, state.stage))
    ended = (diverged > 0) | (stage == work.settings.epochs.shape[1])
    if ended.all():  # nothing is left to train
        _expect(work, [], epoch)
        return _Moment(state, next_stop, seconds)
    epochs = min(population.every, next_stop - epoch)
    operations = models.training_flops(population.task.network, work.dataset.image_shape) * len(work.dataset.train)
    training = _training(work.chunk, population, ended, (work.stops[-1] - epoch) * operations)
    start, traces = time.perf_counter(), population.traces
    state, history = interruptibly(population.advance, state, work.settings, work.streams, work.data, epochs, training)
    lines = _metric_lines(work, epoch, state, history)
    work.folder.append_metrics(lines)
    work.lines.update({(line["member"], line["epoch"]): line for line in lines})
    if population.traces > traces:  # a smaller program, for those that still train
        work.folder.update_plan(work.chunk.program, population.compiled)
    elapsed = time.perf_counter() - start
    _report_progress(work, epoch + epochs, elapsed, lines)
    return _Moment(state, epoch + epochs, seconds + elapsed)


def _training(chunk: Chunk, population: Population, ended: np.ndarray, left: float) -> np.ndarray | None:
    """Which members of a chunk to go on with, where the others' end makes room for a smaller program.

    Args:
        chunk: the members.
        population: their program.
        ended: whether each has trained its epochs, or diverged; not all have.
        left: operations that each member still has before it.

    Returns:
        The numbers of those that train, repeated up to a half, a quarter, ... of the chunk; or None, for all of them:
        where that is as many, or spares less than compiling another program costs. Decided by numbers that a resumed
        run has too, for another size of program is another rounding.
    """
    active, size = np.flatnonzero(~ended), chunk.size
    while size % (2 * population.devices) == 0 and len(active) <= size // 2:
        size //= 2
    if size == chunk.size or (chunk.size - size) * left < _OPERATIONS_TO_COMPILE:
        return None
    return np.resize(active, size)


def _drop_newer_metrics(
    folder: RunFolder, members: tuple[Member, ...], epoch: int
) -> dict[tuple[str, int], dict[str, Any]]:
    """Drops metrics that the restored state has not seen; returns the members' other lines by member and epoch."""
    ours = {member.id for member in members}
    ends = {trial.id: trial.epochs for member in members for trial in member.trials}  # if it does not stop early
    recorded = folder.recorded()
    if recorded.is_whole and ours.isdisjoint(recorded.epochs) and recorded.evaluated.isdisjoint(ends):
        return {}

    def is_kept(line: dict[str, Any]) -> bool:
        if "trial" in line:
            return line["trial"] not in ends or ends[line["trial"]] < epoch
        return line["member"] not in ours or line["epoch"] <= epoch

    lines = [line for line in folder.keep_metrics(is_kept) if line.get("member") in ours]
    return {(line["member"], line["epoch"]): line for line in lines}


def _metric_lines(work: _Work, epoch: int, state: State, history: EpochMetrics) -> list[dict[str, Any]]:
    """One line per epoch and member, up to the epoch in which a member ended."""
    diverged, last = get((state.diverged, state.epoch))
    validates = work.dataset.validation is not None
    arrays = {name: array for name, array in history._asdict().items() if validates or name.startswith("train")}
    lines = []
    for i in range(history.train_loss.shape[1]):
        for m, member in enumerate(work.chunk.members):
            now = epoch + i + 1
            if now > max(diverged[m], last[m]):
                continue
            values = {name: float(array[m, i]) for name, array in arrays.items()}
            status = {"status": "diverged"} if diverged[m] == now else {}
            lines.append({"member": member.id, "epoch": now, **values, **status})
    return lines


def _record_trials(work: _Work, now: _Moment) -> None:
    """Writes predictions, evaluation lines and rows of the trials that end at this epoch."""
    state, epoch, seconds = now
    members, dataset = work.chunk.members, work.dataset
    logits = interruptibly(work.population.predict, state, work.settings, work.data)
    diverged, ran = get((state.diverged, state.epoch))
    best = np.zeros_like(ran) if state.best is None else get(state.best.epoch)
    rows, evaluations = {}, []
    seen = len(work.lines) * len(dataset.train)  # a member that stopped sees no more
    for m, member in enumerate(members):
        for trial in (trial for trial in member.trials if trial.epochs == epoch):
            measured: dict[str, Any] = {
                "seconds": round(seconds / len(members), 3),
                "images_per_second": round(seen / seconds, 1),
            }
            # An epoch's loss is finite where only its last update was not: then there is nothing to predict with.
            if diverged[m] or np.isnan(logits[m]).any():
                measured |= {"status": "diverged", "epochs_run": int(diverged[m] or ran[m])}
            else:
                work.folder.write_predictions(trial.id, logits=logits[m])
                test = classification(logits[m], dataset.test.labels)
                evaluations.append({"trial": trial.id, "epoch": int(ran[m]), "split": "test", **test})
                best_epoch = int(best[m] or ran[m])
                stops_early = trial.stages[-1].traced.early_stopping != "off"
                measured |= _measures(work.lines[member.id, best_epoch if stops_early else int(ran[m])], test)
                status = "early_stopped" if ran[m] < trial.epochs else "ok"
                measured |= {"status": status, "epochs_run": int(ran[m]), "best_epoch": best_epoch}
            rows[trial.id] = trial_row(trial, member.id, measured)
    work.folder.append_metrics(evaluations)
    work.folder.write_trials(rows)


def _measures(line: dict[str, Any], test: dict[str, float]) -> dict[str, Any]:
    seen = {name: line.get(name) for name in EpochMetrics._fields}
    tested = {("test_" + k if k in ("loss", "accuracy") else k): v for k, v in test.items()}
    return {**seen, **tested}


def _expect(work: _Work, training: Sequence[Member], epoch: int) -> None:
    """Corrects the images that the progress still expects, given the members that go on training after an epoch."""
    left = sum(member.epochs - epoch for member in training)
    work.progress.spare((work.left[0] - left) * len(work.dataset.train))
    work.left[0] = left


def _report_progress(work: _Work, epoch: int, seconds: float, lines: list[dict[str, Any]]) -> None:
    """Tells the progress of the members that trained."""
    members, per_epoch = work.chunk.members, len(work.dataset.train)
    newest = {line["member"]: line for line in lines}.values()
    training = {line["member"] for line in newest if line["epoch"] == epoch and "status" not in line}
    work.left[0] -= len(lines)
    _expect(work, [member for member in members if member.id in training], epoch)
    work.progress.epoch(
        epoch,
        work.stops[-1],
        [line["train_loss"] for line in newest],
        [line["train_accuracy"] for line in newest],
        len(lines) * per_epoch,
        seconds,
        f"{members[0].id}-{members[-1].id}",
    )
