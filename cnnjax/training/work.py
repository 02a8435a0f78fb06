"""What is trained together: a batch of members, and all that its training reads and writes."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cnnjax.data import Dataset
from cnnjax.runs.program_records import ProgramRecords
from cnnjax.runs.run_dir import RunFolder
from cnnjax.study.hparams import Streams
from cnnjax.study.plan import Member
from cnnjax.study.trials import Trial
from cnnjax.training.device_data import DeviceData
from cnnjax.training.population import Population
from cnnjax.training.stacking import Hparams
from cnnjax.training.train_state import TrainState
from cnnjax.utils.progress import Progress


class MemberBatch(NamedTuple):
    """Members that train together. Copies of the first member fill the batch up to `size`; on a CPU, they do not train.

    Attributes:
        program: the id of their program.
        members: the members, with the trials that any study of the run has asked for.
        size: how many train together.
        asked: those of the members that have something left to train, with the trials of the newest study.
    """

    program: str
    members: tuple[Member, ...]
    size: int
    asked: tuple[Member, ...] = ()

    @property
    def places(self) -> list[str]:
        """The id of the member at each place of the program. The copies are in the last places."""
        ids = [member.id for member in self.members]
        return [*ids, *ids[:1] * (self.size - len(ids))]


@dataclasses.dataclass
class Work:
    """A batch of members, and everything that its training reads and writes."""

    folder: RunFolder
    population: Population
    batch: MemberBatch
    dataset: Dataset
    data: DeviceData
    progress: Progress
    hparams: Hparams
    streams: Streams
    waiting: dict[int, list[tuple[int, Trial]]]  # trials without a result, and their members' places, by last epoch
    finished: set[str]  # the ids of trials with a result
    # Of metrics.jsonl, by member and epoch.
    lines: dict[tuple[str, int], dict[str, Any]] = dataclasses.field(default_factory=dict)
    epochs_left: int = 0  # of all members together, as the progress expects them
    images: int = 0  # that all members together have trained on since this start
    seconds: float = 0.0  # that they took

    @property
    def last(self) -> int:
        """Returns the last epoch to train."""
        return max(self.waiting)

    @property
    def train_size(self) -> int:
        """Returns the number of training images of each member."""
        return self.dataset.train_size(self.batch.members[0].trials[0].static.train_examples)

    def count_images(self, lines: Iterable[Mapping[str, Any]]) -> int:
        """Returns the number of images that were trained on in epochs of members, given their metrics.

        An epoch counts once, though it has metrics for each decay of the averaged weights.
        """
        members = {next(iter(member.decays)): member for member in self.batch.members}
        shares = (members[line["member"]].share(line["epoch"]) for line in lines if line["member"] in members)
        return round(self.train_size * sum(shares))

    @property
    def records(self) -> ProgramRecords:
        """Returns the records of the members' program."""
        return self.folder.program(self.batch.program)


class Checkpoint(NamedTuple):
    """The members after some of their epochs."""

    state: TrainState
    epoch: int
    seconds: float  # of training so far
