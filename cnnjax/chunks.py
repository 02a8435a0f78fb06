"""Trains one chunk of a program's members to the end, writing down everything on the way."""

import time
from typing import Any, NamedTuple

import numpy as np

from cnnjax import models
from cnnjax.data import Dataset
from cnnjax.metrics import classification
from cnnjax.population import DeviceData, Population
from cnnjax.progress import Progress
from cnnjax.records import RunFolder, trial_row
from cnnjax.train import EpochMetrics, State
from cnnjax.types import Member, Trial

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
    stops = sorted({trial.epochs for member in members for trial in member.trials})
    finished = folder.read_trials()
    missing = [trial.epochs for member in members for trial in member.trials if trial.id not in finished]
    if not missing:
        return
    # orbax takes a second to import: a plan does without
    from cnnjax.checkpoints import Checkpoints

    settings, streams = population.stack(chunk.filled)
    population.compile(settings, streams, data)
    folder.update_plan(chunk.program, population.compiled)
    operations = models.training_flops(population.task.network, dataset.image_shape) * len(dataset.train)
    checkpoints = Checkpoints(
        folder.checkpoints(chunk.program, members[0].id, members[-1].id, chunk.size),
        population.keep,
        stops,
    )
    try:
        restored = checkpoints.restore(population.abstract_state(settings, streams))
        # Where trials.csv was lost, a trial may have ended before the restored state: then from the beginning.
        if restored is None or restored[1]["epoch"] > min(missing):
            state, epoch, seconds = population.init(settings, streams), 0, 0.0
        else:
            state, meta = restored
            epoch, seconds = meta["epoch"], meta["seconds"]
        lines = _drop_newer_metrics(folder, members, epoch)
        while True:
            if epoch in stops:
                logits = population.predict(state, settings, data)
                _record_trials(folder, members, epoch, seconds, state, logits, lines, dataset)
            if epoch == stops[-1]:
                break
            next_stop = min(stop for stop in stops if stop > epoch)
            ended = (np.asarray(state.diverged) > 0) | (np.asarray(state.stage) == settings.epochs.shape[1])
            epochs, running = min(population.every, next_stop - epoch), ~ended[: len(members)]
            start = time.perf_counter()
            history = None
            if ended.all():
                epochs = next_stop - epoch  # nothing is left to train
            else:
                training = _training(chunk, population, ended, (stops[-1] - epoch) * operations)
                state, history = population.advance(state, settings, streams, data, epochs, training)
                new = _metric_lines(members, epoch, state, history)
                folder.append_metrics(new)
                lines.update({(line["member"], line["epoch"]): line for line in new})
            elapsed = time.perf_counter() - start
            epoch, seconds = epoch + epochs, seconds + elapsed
            checkpoints.save(
                epoch,
                state,
                {"epoch": epoch, "seconds": seconds, "members": [m.id for m in chunk.filled]},
            )
            if epoch in stops:
                checkpoints.wait()
            _report_progress(progress, chunk, epoch, stops[-1], epochs, elapsed, running, history, dataset)
    finally:
        checkpoints.close()


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
    trials = {trial.id for member in members for trial in member.trials}

    def is_kept(line: dict[str, Any]) -> bool:
        if "trial" in line:
            return line["trial"] not in trials or line["epoch"] < epoch
        return line["member"] not in ours or line["epoch"] <= epoch

    folder.keep_metrics(is_kept)
    lines = [line for line in folder.read_metrics() if line.get("member") in ours]
    return {(line["member"], line["epoch"]): line for line in lines}


def _metric_lines(members: tuple[Member, ...], epoch: int, state: State, history: EpochMetrics) -> list[dict[str, Any]]:
    """One line per epoch and member, up to the epoch in which a member ended."""
    diverged, last = np.asarray(state.diverged), np.asarray(state.epoch)
    lines = []
    for i in range(history.train_loss.shape[1]):
        for m, member in enumerate(members):
            now = epoch + i + 1
            if now > max(diverged[m], last[m]):
                continue
            values = {name: float(array[m, i]) for name, array in history._asdict().items()}
            if np.isnan(history.val_loss).all() and np.isnan(history.val_accuracy).all():
                values = {name: v for name, v in values.items() if name.startswith("train")}
            status = {"status": "diverged"} if diverged[m] == now else {}
            lines.append({"member": member.id, "epoch": now, **values, **status})
    return lines


def _record_trials(
    folder: RunFolder,
    members: tuple[Member, ...],
    epoch: int,
    seconds: float,
    state: State,
    logits: np.ndarray,
    lines: dict[tuple[str, int], dict[str, Any]],
    dataset: Dataset,
) -> None:
    """Writes predictions, evaluation lines and rows of the trials that end at this epoch."""
    diverged, ran = np.asarray(state.diverged), np.asarray(state.epoch)
    best = np.zeros_like(ran) if state.best is None else np.asarray(state.best.epoch)
    rows = folder.read_trials()
    evaluations = []
    for m, member in enumerate(members):
        for trial in (trial for trial in member.trials if trial.epochs == epoch):
            measured: dict[str, Any] = {
                "seconds": round(seconds / len(members), 3),
                "images_per_second": round(epoch * len(dataset.train) * len(members) / seconds, 1),
            }
            if diverged[m]:
                measured |= {"status": "diverged", "epochs_run": int(diverged[m])}
            else:
                folder.write_predictions(trial.id, logits=logits[m])
                test = classification(logits[m], dataset.test.labels)
                evaluations.append(_evaluation_line(trial, test))
                best_epoch = int(best[m] or ran[m])
                stops_early = trial.stages[-1].traced.early_stopping != "off"
                measured |= _measures(lines[member.id, best_epoch if stops_early else int(ran[m])], test)
                status = "early_stopped" if ran[m] < trial.epochs else "ok"
                measured |= {"status": status, "epochs_run": int(ran[m]), "best_epoch": best_epoch}
            rows[trial.id] = trial_row(trial, member.id, measured)
    folder.append_metrics(evaluations)
    folder.write_trials(rows)


def _evaluation_line(trial: Trial, test: dict[str, float]) -> dict[str, Any]:
    return {"trial": trial.id, "epoch": trial.epochs, "split": "test", **test}


def _measures(line: dict[str, Any], test: dict[str, float]) -> dict[str, Any]:
    seen = {name: line.get(name) for name in EpochMetrics._fields}
    tested = {("test_" + k if k in ("loss", "accuracy") else k): v for k, v in test.items()}
    return {**seen, **tested}


def _report_progress(
    progress: Progress,
    chunk: Chunk,
    epoch: int,
    epochs: int,
    ran: int,
    seconds: float,
    running: np.ndarray,
    history: EpochMetrics | None,
    dataset: Dataset,
) -> None:
    """Tells the progress of the members that were running; the others are spared from what was expected."""
    images = ran * len(dataset.train)
    progress.spare(images * int((~running).sum()))
    if history is not None:
        progress.epoch(
            epoch,
            epochs,
            [float(value) for value in history.train_loss[: len(running), -1][running]],
            [float(value) for value in history.train_accuracy[: len(running), -1][running]],
            images * int(running.sum()),
            seconds,
            f"{chunk.members[0].id}-{chunk.members[-1].id}",
        )
