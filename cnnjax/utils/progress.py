"""The progress of a study: a live line and a bar on a terminal or in a notebook, plain lines on stderr elsewhere."""

import contextlib
import math
import operator
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self, TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.progress import track
from rich.progress_bar import ProgressBar
from rich.text import Text

from cnnjax.utils.notebook import cell_output
from cnnjax.utils.text import counted

_Item = TypeVar("_Item")
_FIRST, _INTERVAL = 2.0, 10.0  # seconds before the first line of `tracked` without a terminal, and between lines


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # instead of rich's exit with code 1


class Progress:
    """Prints what runs and the time left. Call the methods in the order below.

    Args:
        console: to write to (default: the output of a notebook's cell, or stderr).
        clock: returns seconds since a fixed time.
        is_shown: False to write nothing, because another process does.

    Attributes:
        on_checkpoint: called when a checkpoint is on disk.
    """

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.monotonic, *, is_shown: bool = True
    ):
        # rich would take FORCE_COLOR for a terminal.
        terminal = is_shown and sys.stderr.isatty()
        self.on_checkpoint: Callable[[], None] | None = None
        self._console = console or _Console(stderr=True, force_terminal=terminal, quiet=not is_shown)
        self._cell = cell_output() if is_shown and console is None else None
        self._clock = clock
        self._live: Live | None = None
        self._program, self._title = "", ""
        self._reset((), (), ())

    def _reset(self, images: Sequence[int], costs: Sequence[float], compiling: Sequence[float]) -> None:
        self._started = self._clock()
        self._programs, self._images, self._seen = len(images), sum(images), 0
        self._costs, self._cost = costs, 1.0  # expected seconds of an image, of each program and of the current one
        self._work, self._done = sum(map(operator.mul, images, costs)), 0.0  # images times cost: in total, and seen
        self._to_compile = dict(enumerate(compiling, 1))  # expected seconds of the programs that are not compiled yet
        self._compiling, self._expected = 0.0, 0.0  # seconds of the compiled programs: measured, and expected
        self._training = 0.0  # seconds
        self._index = 0  # of the current program

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def begin(
        self,
        programs: int,
        members: int,
        images: Sequence[int],
        costs: Sequence[float] | None = None,
        compiling: Sequence[float] | None = None,
    ) -> None:
        """Starts the clock.

        Args:
            programs: number of programs.
            members: number of members of all programs.
            images: number of training images that each program's members have not seen yet.
            costs: expected seconds per image, by program; by default all are equal. Only their ratios matter once an
                epoch has been timed.
            compiling: expected seconds to compile each program; by default all are equal. The same holds for them.
        """
        self._reset(images, costs or [1.0] * programs, compiling or [1.0] * programs)
        self.note(f"{counted(programs, 'program')}, {counted(members, 'member')}, {sum(images):,} images")
        if self._cell is None and self._console.is_terminal and not self._console.is_dumb_terminal:
            # Without a refreshing thread, which would take time from training.
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()

    def program(self, index: int, model: str, optimizer: str, batch_size: int, members: int) -> None:
        """Reports that a program starts; `index` counts from 1."""
        self.turn(index)
        self._title = f"{self._program} {model}, {optimizer}, batch size {batch_size}: {counted(members, 'member')}"
        if self._cell is None:
            self.note(self._title)
        self._show(f"{self._program} compiling")

    def turn(self, index: int) -> None:
        """Selects the program of the following reports, because several may run at once."""
        self._program = f"[{index}/{self._programs}]"
        self._index, self._cost = index, self._costs[index - 1]

    def compiled(self, seconds: float) -> None:
        """Reports that the program is compiled."""
        self._compiling += seconds
        self._expected += self._to_compile.pop(self._index, 0.0)
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
        """Reports a finished epoch.

        Args:
            epoch: number of the epoch, from 1.
            epochs: number of epochs in total.
            losses: training loss of each member, not finite if it diverged.
            accuracies: training accuracy of each member, in [0, 1].
            images: number of images that all members together saw.
            seconds: of training.
            members: name of the batch of members.
        """
        self._seen += images
        self._done += images * self._cost
        self._training += seconds
        parts = (
            f"{self._program} {members} epoch {epoch}/{epochs}",
            f"loss {_losses(losses)}",
            f"accuracy {_range([100 * value for value in accuracies], '.1f')} %",
            f"{_rate(images, seconds)} images/s",
            self._left(),
        )
        self._show("  ".join(part for part in parts if part), is_frequent=True)

    def skip(self, images: int) -> None:
        """Removes images of this program from the expected work; a negative number adds images."""
        self._images -= images
        self._work -= images * self._cost

    def note(self, text: str) -> None:
        """Prints a line that stays on the screen."""
        if self._cell is not None:
            self._cell.note(text)
            return
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def end(self) -> None:
        """Ends the display and prints a summary."""
        self._stop()
        seconds = self._clock() - self._started
        if self._seen:
            self.note(f"{self._seen:,} images in {duration(seconds)}, {_rate(self._seen, seconds)} images/s")

    def _show(self, line: str, is_frequent: bool = False) -> None:
        if self._cell is not None:
            self._cell.show([self._title, line], (self._seen, max(self._images, 1)), is_frequent)
            return
        if self._live is None:
            self.note(line)
            return
        bar = ProgressBar(total=max(self._images, 1), completed=self._seen)
        self._live.update(Group(Text(line, no_wrap=True, overflow="ellipsis"), bar), refresh=True)

    def _left(self) -> str:
        if self._images <= self._seen or not self._done:
            return ""
        elapsed, busy = self._clock() - self._started, self._training + self._compiling
        waiting = len(self._to_compile)
        # What is left takes longer or shorter than expected by the same factor as what is done.
        seconds = self._training / self._done * max(self._work - self._done, 0.0)
        if self._expected:
            seconds += self._compiling / self._expected * sum(self._to_compile.values())
        # The rest of the time went into writing and loading: as much for each program.
        seconds += max(elapsed - busy, 0.0) / max(self._programs - waiting, 1) * waiting
        # Programs that train side by side are busy longer than the clock.
        return f"about {duration(seconds * min(1.0, elapsed / busy if busy else 1.0))} left"

    def _stop(self) -> None:
        if self._cell is not None:
            self._cell.close()
        if self._live is not None:
            self._live.stop()
            self._live = None


def tracked(
    items: Iterable[_Item],
    description: str,
    total: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[_Item]:
    """Yields items and reports progress: a bar on a terminal, elsewhere a line every few seconds.

    In a notebook, each line replaces the one before.

    Args:
        items: the items.
        description: of the work, in words.
        total: number of items; by default the length hint of `items`.
        clock: returns seconds since a fixed time.
    """
    if sys.stderr.isatty():
        return iter(track(items, description, total, console=_Console(stderr=True)))
    return _with_lines(items, description, operator.length_hint(items) if total is None else total, clock)


@contextlib.contextmanager
def announced(what: str) -> Iterator[None]:
    """Prints what the block does to stderr, if it takes longer than two seconds."""
    timer = threading.Timer(_FIRST, lambda: print(f"{what} ...", file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _with_lines(items: Iterable[_Item], description: str, total: int, clock: Callable[[], float]) -> Iterator[_Item]:
    start, due, cell = clock(), _FIRST, cell_output()
    for count, item in enumerate(items):
        seconds = clock() - start
        if count and seconds >= due:
            left = duration(seconds / count * (total - count))
            line = f"{description}: {count:,} of {total:,}, about {left} left"
            if cell is None:
                print(line, file=sys.stderr, flush=True)
            else:
                cell.show([line])
            due = seconds + _INTERVAL
        yield item
    if cell is not None:
        cell.close()


def duration(seconds: float) -> str:
    """Returns a duration in its two largest units: '42 s', '3 min 5 s', '1 h 20 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _losses(losses: Sequence[float]) -> str:
    diverged = sum(not math.isfinite(loss) for loss in losses)
    return _range(losses, ".4g") + (f" ({diverged} diverged)" if diverged else "")


def _range(values: Sequence[float], form: str) -> str:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "-"
    low, high = format(min(finite), form), format(max(finite), form)
    return low if low == high else f"{low}..{high}"


def _rate(images: int, seconds: float) -> str:
    return f"{images / seconds:,.0f}" if seconds > 0 else "-"
