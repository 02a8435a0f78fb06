"""Finds the state from which the training of a batch of members resumes: the newest one with all metrics recorded."""

from typing import TYPE_CHECKING, Any

import numpy as np

from cnnjax.training.devices import get
from cnnjax.training.train_state import TrainState, has_ended
from cnnjax.training.work import Checkpoint, Work
from cnnjax.utils.signals import interruptibly

if TYPE_CHECKING:
    from cnnjax.training.checkpoints import Checkpoints


def split_into_parts(ends: list[int], stored: list[int]) -> list[list[int]]:
    """Divides the last epochs of waiting trials into parts. Each part resumes from one state.

    Trials whose state is stored come first, each alone: nothing is to be trained. Then the trials train that end after
    the newest state. Trials that end before it and have no stored state come last: they train from an older state.
    """
    newest = max(stored, default=0)
    late, early = [end for end in ends if end >= newest], [end for end in ends if end < newest and end not in stored]
    return [*([end] for end in ends if end < newest and end in stored), *filter(None, (late, early))]


def restore_or_init(work: Work, checkpoints: "Checkpoints", most: int, lines: list[dict[str, Any]]) -> Checkpoint:
    """Returns the newest intact checkpoint of epoch `most` or before whose metrics are recorded, else a new state."""
    recorded = {(line["member"], line["epoch"]) for line in lines if "member" in line}
    abstract = work.population.abstract_state(work.hparams, work.streams)
    while restored := checkpoints.restore(abstract, most, work.progress.note):
        state, meta = restored
        last = np.maximum(*get((state.diverged, state.epoch))).clip(max=meta["epoch"])
        lost = [
            epoch
            for member, ran in zip(work.batch.members, last, strict=False)
            for epoch in range(1, int(ran) + 1)
            if any((name, epoch) not in recorded for name in member.decays)
        ]
        if not lost:
            state = work.population.with_more_epochs(state, work.hparams)
            if not _lags(work, state, meta["epoch"]):
                return Checkpoint(state, meta["epoch"], meta["seconds"])
            checkpoints.stale.add(meta["epoch"])
            most = meta["epoch"] - 1
            continue
        most = min(lost) - 1
        work.progress.note(f"metrics.jsonl lacks epoch {min(lost)}; going on from the state before it")
    return Checkpoint(interruptibly(work.population.init, work.hparams, work.streams), 0, 0.0)


def _lags(work: Work, state: TrainState, epoch: int) -> bool:
    """Returns whether a waiting member ended before this epoch, because it was asked for fewer epochs than others."""
    stage, trained, diverged = get((state.stage, state.epoch, state.diverged))
    ended = has_ended(diverged, stage, work.hparams.epochs)
    places = {place for trials in work.waiting.values() for place, _ in trials}
    return any(not ended[place] and trained[place] < epoch for place in places)


def drop_newer_metrics(work: Work, epoch: int, lines: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """Drops metrics of the members that are newer than an epoch, except those of finished trials.

    Returns:
        The members' other lines by member and epoch.
    """
    members, finished = work.batch.members, work.finished
    unfinished = {trial.id for member in members for trial in member.trials} - finished
    ends = dict.fromkeys((name for member in members for name in member.decays), epoch)
    for trial in (trial for member in members for trial in member.trials if trial.id in finished):
        ends[trial.member] = max(ends[trial.member], trial.epochs)

    def is_kept(line: dict[str, Any]) -> bool:
        if "trial" in line:
            return line["trial"] not in unfinished
        return line["epoch"] <= ends.get(line["member"], line["epoch"])

    if not all(map(is_kept, lines)):
        work.records.keep_metrics(is_kept)
    return {(line["member"], line["epoch"]): line for line in filter(is_kept, lines) if "member" in line}
