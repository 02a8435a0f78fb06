"""The output of a notebook's cell, which changes in place. Imports no IPython: in a notebook, IPython is there."""

import html
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

_INTERVAL = 0.2  # least seconds between two messages to the notebook that replace the same lines


class CellOutput:
    """An output of the cell that runs: notes, which stay, and below them lines and a bar, which are replaced.

    Args:
        display: `IPython.display.display`.
        clock: returns seconds since a fixed time.
    """

    def __init__(self, display: Callable[..., Any], clock: Callable[[], float] = time.monotonic):
        self._display, self._clock = display, clock
        self._handle: Any = None
        self._notes: list[str] = []
        self._live: list[str] = []
        self._bar: tuple[int, int] | None = None
        self._due = 0.0

    def note(self, text: str) -> None:
        """Adds a line that stays."""
        self._notes.append(text)
        self._send()

    def show(self, lines: Sequence[str], bar: tuple[int, int] | None = None, is_frequent: bool = False) -> None:
        """Replaces the lines below the notes.

        Args:
            lines: the new lines.
            bar: how much is done, and how much there is; None for no bar.
            is_frequent: whether these lines may be left out, because the next ones follow at once.
        """
        self._live, self._bar = [*lines], bar
        if not is_frequent or self._clock() >= self._due:
            self._send()

    def close(self) -> None:
        """Removes the lines below the notes."""
        if self._live:
            self._live, self._bar = [], None
            self._send()

    def _send(self) -> None:
        self._due = self._clock() + _INTERVAL
        text = "\n".join([*self._notes, *self._live])
        page = f"<pre>{html.escape(text)}</pre>"
        if self._bar is not None:
            page += '<progress style="width: 100%" value="{}" max="{}"></progress>'.format(*self._bar)
        content = {"text/plain": text, "text/html": page}
        if self._handle is None:
            self._handle = self._display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


def cell_output() -> CellOutput | None:
    """Returns an output of the cell that runs; None outside of notebooks, also in IPython on a terminal."""
    ipython = sys.modules.get("IPython")
    if ipython is None or not hasattr(ipython.get_ipython(), "kernel"):
        return None
    from IPython.display import display

    return CellOutput(display)
