"""How far a study is, on stderr: a live line and a bar on a terminal, plain lines elsewhere."""

import math
import operator
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import length_hint
from typing import Self, TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.progress import track
from rich.progress_bar import ProgressBar
from rich.text import Text

from cnnjax.utils.text import counted

_Item = TypeVar("_Item")
_SILENT, _AGAIN = 2.0, 10.0  # seconds before the first line of what is tracked without a terminal, and between lines


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # what rich does instead is to exit with code 1


class Progress:
    """Says what runs and how long it still takes; the runner calls the methods in the order below.

    Args:
        console: where to write (default: stderr).
        clock: seconds from any fixed moment.
        is_shown: else nothing is written: another process does.

    Attributes:
        on_checkpoint: called when a checkpoint is on disk.
    """

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.monotonic, *, is_shown: bool = True
    ):
        # Said explicitly, because rich takes FORCE_COLOR for a terminal.
        terminal = is_shown and sys.stderr.isatty()
        self.on_checkpoint: Callable[[], None] | None = None
        self._console = console or _Console(stderr=True, force_terminal=terminal, quiet=not is_shown)
        self._clock = clock
        self._live: Live | None = None
        self._started = clock()
        self._programs = self._images = self._seen = 0
        self._program = ""
        self._costs: Sequence[float] = ()
        self._cost = 1.0  # of an image of this program
        self._work = self._done = 0.0  # images by their cost: of all, and seen
        self._compiling: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def begin(
        self, programs: int, members: int, images: int | Sequence[int], costs: Sequence[float] | None = None
    ) -> None:
        """Starts the clock.

        Args:
            programs: how many programs will run.
            members: how many members they train.
            images: how many training images all members together still have to see; of each program, or of all.
            costs: the operations for an image, of each program; the default takes them for equal.
        """
        of_each = [images] if isinstance(images, int) else images
        images = sum(of_each)
        self._costs = costs or [1.0] * programs
        self._work = sum(map(operator.mul, of_each, self._costs)) if costs else float(images)
        self._done, self._cost, self._compiling = 0.0, 1.0, []
        self._programs, self._images, self._seen, self._started = programs, images, 0, self._clock()
        self.note(f"{counted(programs, 'program')}, {counted(members, 'member')}, {images:,} images")
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            # Refreshed by our updates only: a refreshing thread would take time from training.
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()

    def program(self, index: int, model: str, optimizer: str, batch_size: int, members: int) -> None:
        """A program starts; `index` counts from 1."""
        self.turn(index)
        self.note(f"{self._program} {model}, {optimizer}, batch size {batch_size}: {counted(members, 'member')}")
        self._show(f"{self._program} compiling")

    def turn(self, index: int) -> None:
        """What is said next is about this program: several may run at once."""
        self._program = f"[{index}/{self._programs}]"
        self._cost = self._costs[index - 1]

    def compiled(self, seconds: float) -> None:
        """The program that started is compiled."""
        self._compiling.append(seconds)
        self._show(f"{self._program} compiled in {seconds:.1f} s")

    def epoch(
        self,
        epoch: int,
        epochs: int,
        losses: Sequence[float],
        accuracies: Sequence[float],
        images: int,
        seconds: float,
        members: str,
    ) -> None:
        """A population finished an epoch.

        Args:
            epoch: which one, from 1.
            epochs: how many there will be.
            losses: training loss of each member, not finite where it diverged.
            accuracies: training accuracy of each member, a share.
            images: how many images the members saw in this epoch, all together.
            seconds: how long that took.
            members: which members, in words.
        """
        self._seen += images
        self._done += images * self._cost
        parts = (
            f"{self._program} {members} epoch {epoch}/{epochs}",
            f"loss {_losses(losses)}",
            f"accuracy {_range([100 * value for value in accuracies], '.1f')} %",
            f"{_rate(images, seconds)} images/s",
            self._left(),
        )
        self._show("  ".join(part for part in parts if part))

    def skip(self, images: int) -> None:
        """Removes images of this program from the expected work, because members ended early; below 0, adds them."""
        self._images -= images
        self._work -= images * self._cost

    def note(self, text: str) -> None:
        """Says something that stays on the screen."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def end(self) -> None:
        """Ends the display and says what was done."""
        self._stop()
        seconds = self._clock() - self._started
        if self._seen:
            rate = _rate(self._seen, seconds)
            self.note(f"{self._seen:,} images in {duration(seconds)}, {rate} images/s")

    def _show(self, line: str) -> None:
        if self._live is None:
            self.note(line)
            return
        bar = ProgressBar(total=max(self._images, 1), completed=self._seen)
        text = Text(line, no_wrap=True, overflow="ellipsis")
        self._live.update(Group(text, bar), refresh=True)

    def _left(self) -> str:
        # By the clock, so that evaluating counts too; what is still to compile takes as long as what was compiled.
        left = max(self._work - self._done, 0.0)
        if self._images <= self._seen or not self._done:
            return ""
        compiled = sum(self._compiling)
        seconds = max(self._clock() - self._started - compiled, 0.0) / self._done * left
        if self._compiling:
            seconds += compiled / len(self._compiling) * (self._programs - len(self._compiling))
        return f"about {duration(seconds)} left"

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def tracked(
    items: Iterable[_Item],
    description: str,
    total: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[_Item]:
    """Yields items; a terminal shows how many have been taken, elsewhere a line says so where it takes long.

    Args:
        items: what is worked on.
        description: what is done, in words.
        total: how many there are; by default what `items` says.
        clock: seconds from any fixed moment.
    """
    if sys.stderr.isatty():
        return iter(track(items, description, total, console=_Console(stderr=True)))
    return _told(items, description, length_hint(items) if total is None else total, clock)


def _told(items: Iterable[_Item], description: str, total: int, clock: Callable[[], float]) -> Iterator[_Item]:
    start, due = clock(), _SILENT
    for count, item in enumerate(items):
        seconds = clock() - start
        if count and seconds >= due:
            left = duration(seconds / count * (total - count))
            print(f"{description}: {count:,} of {total:,}, about {left} left", file=sys.stderr, flush=True)
            due = seconds + _AGAIN
        yield item


def duration(seconds: float) -> str:
    """Writes a duration in its two largest units: '42 s', '3 min 5 s', '1 h 20 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _losses(losses: Sequence[float]) -> str:
    finite = [loss for loss in losses if math.isfinite(loss)]
    diverged = len(losses) - len(finite)
    return _range(finite, ".4g") + (f" ({diverged} diverged)" if diverged else "")


def _range(values: Sequence[float], form: str) -> str:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "-"
    low, high = format(min(finite), form), format(max(finite), form)
    return low if low == high else f"{low}..{high}"


def _rate(images: int, seconds: float) -> str:
    return f"{images / seconds:,.0f}" if seconds > 0 else "-"
