"""Trains a batch of members to the last epoch, and writes the results to the run's directory."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cnnjax.analysis.metrics import classification
from cnnjax.data import Dataset
from cnnjax.models.summary import training_flops
from cnnjax.runs.run_dir import RunFolder
from cnnjax.runs.trials_csv import trial_row
from cnnjax.study.plan import Member
from cnnjax.study.trials import Trial
from cnnjax.training.device_data import DeviceData
from cnnjax.training.devices import get
from cnnjax.training.estimate import network_of
from cnnjax.training.population import Population
from cnnjax.training.resume import drop_newer_metrics, restore_or_init, split_into_parts
from cnnjax.training.train_state import EpochMetrics, TrainState, has_ended
from cnnjax.training.work import Checkpoint, MemberBatch, Work
from cnnjax.utils.progress import Progress
from cnnjax.utils.signals import interruptibly

if TYPE_CHECKING:
    from cnnjax.training.checkpoints import Checkpoints

_OPERATIONS_TO_COMPILE = 2e12  # what a smaller program has to save


class Trained(NamedTuple):
    """The training images of all members together, and the seconds that they took."""

    images: int
    seconds: float


def run_members(
    folder: RunFolder,
    population: Population,
    batch: MemberBatch,
    dataset: Dataset,
    data: DeviceData,
    progress: Progress,
) -> Trained:
    """Trains a batch of members from its newest checkpoint, until all trials that are asked for have a result.

    Returns the images and the seconds of training in this call.

    A kill at any instant is harmless. Metrics are written before the checkpoint of their epoch, and a trial's row after
    it. Metrics newer than the restored checkpoint are dropped, and then written again with the same values, except
    those of trials that have finished.
    """
    members, records = batch.members, folder.program(batch.program)
    finished = set(records.finished(members))
    asked = [trial.epochs for member in batch.asked for trial in member.trials if trial.id not in finished]
    if not asked:
        return Trained(0, 0.0)
    waiting: dict[int, list[tuple[int, Trial]]] = {}
    for place, member in enumerate(members):
        for trial in member.trials:
            if trial.id not in finished and trial.epochs <= max(asked):
                waiting.setdefault(trial.epochs, []).append((place, trial))
    # Importing orbax takes a second, and a plan does not need it.
    from cnnjax.training.checkpoints import Checkpoints

    hparams, streams = population.stack(batch.members, batch.size)
    interruptibly(population.compile, hparams, streams, data)
    records.write_json("program.json", population.compiled)
    ends = sorted({trial.epochs for member in members for trial in member.trials})
    checkpoints = Checkpoints(folder.checkpoints(batch.program, members[0].id, members[-1].id), population.keep, ends)
    try:
        work = Work(folder, population, batch, dataset, data, progress, hparams, streams, waiting, finished)
        work.epochs_left = sum(member.epochs for member in batch.asked)
        for epochs in split_into_parts(sorted(waiting), checkpoints.epochs()):
            work.waiting = {epoch: waiting[epoch] for epoch in epochs}
            _train_and_record(work, checkpoints)
        checkpoints.keep_only(ends)
    finally:
        checkpoints.close()
    return Trained(work.images, work.seconds)


def _train_and_record(work: Work, checkpoints: "Checkpoints") -> None:
    """Trains until all waiting trials have a result."""
    members, progress = work.batch.members, work.progress
    names = {name for m in members for name in m.decays} | {trial.id for m in members for trial in m.trials}
    lines = work.records.read_metrics(names)
    now = restore_or_init(work, checkpoints, min(work.waiting), lines)
    # A part without training keeps the metrics up to the newest state, which other parts need.
    until = now.epoch if now.epoch < work.last else max(now.epoch, *checkpoints.epochs())
    work.lines = drop_newer_metrics(work, until, lines)
    _update_expected(work, [m for m in work.batch.asked if m.epochs > now.epoch], now.epoch)
    while True:
        if now.epoch in work.waiting:
            _record_trials(work, now, checkpoints)
        if now.epoch == work.last:
            break
        now = _train(work, now)
        meta = {"epoch": now.epoch, "seconds": now.seconds, "members": work.batch.places}
        checkpoints.save(now.epoch, now.state, meta)
        if progress.on_checkpoint is not None:
            checkpoints.wait()
            progress.on_checkpoint()


def _train(work: Work, now: Checkpoint) -> Checkpoint:
    """Trains by one compiled call, up to the next stop at most, and writes the metrics."""
    population = work.population
    state, epoch, seconds = now
    next_stop = min(stop for stop in work.waiting if stop > epoch)
    diverged, stage = get((state.diverged, state.stage))
    ended = has_ended(diverged, stage, work.hparams.epochs)
    if ended.all():
        _update_expected(work, [], epoch)
        return Checkpoint(state, next_stop, seconds)
    epochs = min(population.every, next_stop - epoch)
    network = network_of(work.batch.members[0].trials[0].static, work.dataset)
    operations = training_flops(network, work.dataset.image_shape) * work.train_size
    training = _members_to_train(work.batch, population, ended, (work.last - epoch) * operations)
    start, traces = time.perf_counter(), population.traces
    state, history = interruptibly(population.advance, state, work.hparams, work.streams, work.data, epochs, training)
    lines = _metric_lines(work, epoch, state, history)
    work.records.append_metrics(line for line in lines if (line["member"], line["epoch"]) not in work.lines)
    work.lines.update({(line["member"], line["epoch"]): line for line in lines})
    if population.traces > traces:  # a smaller program was compiled for the members that still train
        work.records.write_json("program.json", population.compiled)
    elapsed = time.perf_counter() - start
    work.images += work.count_images(lines)
    work.seconds += elapsed
    _report_progress(work, epoch + epochs, elapsed, lines)
    return Checkpoint(state, epoch + epochs, seconds + elapsed)


def _members_to_train(batch: MemberBatch, population: Population, ended: np.ndarray, left: float) -> np.ndarray | None:
    """Selects the members that still train, if a smaller program for them pays off.

    The decision depends only on numbers that a resumed run has too: a program of another size rounds differently.

    Args:
        batch: the members.
        population: their program.
        ended: whether each member has trained its epochs, or diverged. At least one has not.
        left: floating-point operations that each member still has to do.

    Returns:
        The indices of the members that train, repeated up to a half, a quarter, ... of the batch. None stands for all
        members: if no smaller size holds them, or a smaller program saves less than its compilation costs.
    """
    active, size, devices = np.flatnonzero(~ended), batch.size, population.devices
    while (half := -(-size // (2 * devices)) * devices) < size and len(active) <= half:
        size = half
    if population.skips_ended or size == batch.size or (batch.size - size) * left < _OPERATIONS_TO_COMPILE:
        return None
    return np.resize(active, size)


def _metric_lines(work: Work, epoch: int, state: TrainState, history: EpochMetrics) -> list[dict[str, Any]]:
    """Returns one line per epoch and member, and decay of averaged weights, up to the epoch in which it ended."""
    diverged, last = get((state.diverged, state.epoch))
    validates = work.dataset.validation is not None
    arrays = {name: array for name, array in history._asdict().items() if validates or name.startswith("train")}
    lines = []
    for i in range(history.train_loss.shape[1]):
        for m, member in enumerate(work.batch.members):
            now = epoch + i + 1
            if now > max(diverged[m], last[m]):
                continue
            status = {"status": "diverged"} if diverged[m] == now else {}
            for place, name in enumerate(member.decays):
                values = {key: float(array[m, i].flat[place]) for key, array in arrays.items()}
                lines.append({"member": name, "epoch": now, **values, **status})
    return lines


def trained_epochs(lines: Iterable[Mapping[str, Any]], members: Sequence[Member]) -> int:
    """Returns the number of epochs that all members together trained. A line for each decay tells the same epoch."""
    first = {next(iter(member.decays)) for member in members}
    return sum(line["member"] in first for line in lines)


def _record_trials(work: Work, now: Checkpoint, checkpoints: "Checkpoints") -> None:
    """Writes predictions, evaluation lines and rows of the trials that end at this epoch, when its state is on disk."""
    state, epoch, seconds = now
    members, dataset = work.batch.members, work.dataset
    logits = interruptibly(work.population.predict, state, work.hparams, work.streams, work.data)
    checkpoints.wait()
    diverged, ran = get((state.diverged, state.epoch))
    best = np.zeros_like(ran) if state.best is None else get(state.best.epoch)
    rows, evaluations, test_labels = [], [], dataset.test_labels
    seen = work.count_images(line for line in work.lines.values() if line["epoch"] <= epoch)  # none after an end
    for m, trial in work.waiting[epoch]:
        place = [*members[m].decays].index(trial.member) if trial.static.averages else ...
        of_trial = logits[m][place]
        measured: dict[str, Any] = {
            "seconds": round(seconds / len(members), 3),
            "images_per_second": round(seen / seconds, 1),
        }
        # The epoch's loss can be finite although its last update is not; the logits are then NaN.
        if diverged[m] or np.isnan(of_trial).any():
            measured |= {"status": "diverged", "epochs_run": int(diverged[m] or ran[m])}
        else:
            work.folder.write_predictions(trial.id, logits=of_trial)
            labels = test_labels.get(trial.streams.split, dataset.test.labels)
            test = classification(of_trial, labels, work.population.config.metrics)
            evaluations.append({"trial": trial.id, "epoch": int(ran[m]), "split": "test", **test})
            best_epoch = int(best[m][place] or ran[m])
            stops_early = trial.stages[-1].traced.early_stopping != "off"
            line = work.lines[trial.member, best_epoch if stops_early else int(ran[m])]
            measured |= {name: line.get(name) for name in work.population.measures}
            measured |= {f"test_{name}": value for name, value in test.items()}
            status = "early_stopped" if ran[m] < trial.epochs else "ok"
            measured |= {"status": status, "epochs_run": int(ran[m]), "best_epoch": best_epoch}
        rows.append(trial_row(trial, trial.member, measured))
    work.records.append_metrics(evaluations)
    work.records.append_trials(rows)
    work.finished.update(trial.id for _, trial in work.waiting[epoch])


def _update_expected(work: Work, training: Sequence[Member], epoch: int) -> None:
    """Corrects the number of images that the progress expects, given the members that train after this epoch."""
    left = sum(min(member.epochs, work.last) - epoch for member in training)
    work.progress.skip((work.epochs_left - left) * work.train_size)
    work.epochs_left = left


def _report_progress(work: Work, epoch: int, seconds: float, lines: list[dict[str, Any]]) -> None:
    """Reports the trained epochs to the progress."""
    members, per_epoch = work.batch.members, work.train_size
    newest, trained = {line["member"]: line for line in lines}.values(), trained_epochs(lines, members)
    training = {line["member"] for line in newest if line["epoch"] == epoch and "status" not in line}
    work.epochs_left -= trained
    _update_expected(work, [member for member in members if not training.isdisjoint(member.decays)], epoch)
    work.progress.epoch(
        epoch,
        work.last,
        [line["train_loss"] for line in newest],
        [line["train_accuracy"] for line in newest],
        trained * per_epoch,
        seconds,
        f"{members[0].id}-{members[-1].id}",
    )
