"""One launch at a time in a store."""

import contextlib
import json
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cnnjax.lock import describe_process, taken
from cnnjax.storage.store import Store
from cnnjax.types import RequestError

BEAT = 10.0  # seconds between two signs of life of who holds a store
BEATS = 3  # that may be missed before the holder is taken for dead
SETTLE = 1.0  # seconds after which one of two that claimed at once sees that it was not the last
HOLDER = ".holder.json"


class Claim:
    """A file of the store that says who holds it, and counts on as long as that one lives.

    No clocks are compared: who finds another's claim watches whether it counts.

    Args:
        store: what is claimed.
        folder: the id of the local folder in which the run is worked on.

    Attributes:
        writer: the id of the local folder that changed the store last; None before the first.
    """

    def __init__(self, store: Store, folder: str):
        self.writer: str | None = None
        self._store, self._folder, self._token = store, folder, secrets.token_hex(8)
        self._holder, self._count, self._beaten = describe_process(), 0, 0.0
        self._lock = threading.RLock()
        self._failed: tuple[float, Exception] | None = None

    def take(self, say: Callable[[str], None]) -> None:
        """Takes the claim, also from a holder that is dead.

        A holder that worked in the same local folder is dead: that folder has a lock of its own.

        Args:
            say: told what is waited for.

        Raises:
            RequestError: another launch holds the store, or it does not answer.
        """
        found = self._store.ask(self._read)
        if found.get("token") and found.get("folder") != self._folder:
            say(f"{found['holder']} has claimed {self._store.url}; watching whether it still works in it")
            for _ in range(4 * BEATS):
                time.sleep(BEAT / 4)
                now = self._store.ask(self._read)
                if not now.get("token"):
                    break
                if now != found:
                    raise self._taken(now)
            else:
                say(f"{found['holder']} gave no sign of life: going on in its place")
            found = self._store.ask(self._read)
        self.writer = found.get("writer")
        self._store.ask(self._write)
        time.sleep(SETTLE)
        self._store.ask(self.beat)

    def beat(self) -> None:
        """Gives a sign of life.

        Raises:
            RequestError: another launch has taken the claim.
        """
        with self._turn():
            found = self._read()
            if found.get("token", self._token) != self._token:
                raise self._taken(found)
            self._write()

    def check(self) -> None:
        """Has to come before every change of the store: it may have been lost while this process, or the store, slept.

        Raises:
            RequestError: another launch has taken the claim.
        """
        with self._turn():
            before, self.writer = self.writer, self._folder
            if before == self.writer and time.time() - self._beaten < 2 * BEAT:
                return
            try:
                self.beat()
            except BaseException:
                self.writer = before
                raise

    def release(self) -> None:
        """Gives the claim back, if it is held still."""
        with self._lock:
            if self._read().get("token") == self._token:
                self._write(is_held=False)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """One thread at a time; what fails fails for all that waited meanwhile, for a store may hang on each."""
        came = time.monotonic()
        with self._lock:
            if self._failed is not None and self._failed[0] > came:
                raise self._failed[1]
            try:
                yield
            except Exception as error:
                self._failed = time.monotonic(), error
                raise

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._store.read(HOLDER) or b"{}")
        except ValueError:
            found = {}
        return found if isinstance(found, dict) else {}

    def _write(self, is_held: bool = True) -> None:
        self._count += 1
        held = {"folder": self._folder, "holder": self._holder, "token": self._token, "count": self._count}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / HOLDER
            file.write_text(json.dumps({"writer": self.writer, **(held if is_held else {})}), encoding="utf-8")
            self._store.put(file, HOLDER)
        self._beaten = time.time()

    def _taken(self, found: dict[str, Any]) -> RequestError:
        return taken(self._store.url, found.get("holder", "another process"))
