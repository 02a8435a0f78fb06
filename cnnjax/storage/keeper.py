"""Pushes a run to its store while it trains."""

import signal
import threading
from collections.abc import Callable

from cnnjax.progress import Progress
from cnnjax.storage import claim as claims
from cnnjax.storage.claim import Claim
from cnnjax.storage.local import LocalCopy
from cnnjax.storage.store import said
from cnnjax.types import RequestError

EVERY = 30.0  # seconds between two pushes


class Keeper:
    """Two threads that push and give signs of life while the main one trains.

    Args:
        copy: is pushed.
        claim: on its store.
        progress: told, once, that the store does not answer.

    Attributes:
        lost: what is to be said where another launch has taken the claim; the main thread is interrupted then.
    """

    def __init__(self, copy: LocalCopy, claim: Claim, progress: Progress):
        self._copy, self._claim, self._progress = copy, claim, progress
        self._ends, self._ended = threading.Event(), threading.Event()
        self.lost: RequestError | None = None
        self._is_silent = False
        self._pushing = self._start(EVERY, self._push, self._ends)
        self._start(claims.BEAT, claim.beat, self._ended)

    def end(self) -> RequestError | None:
        """Pushes the last of the run; returns what is to be said where that fails."""
        self._ends.set()
        self._pushing.join()
        try:
            if self.lost is None:
                self._copy.push(self._claim)
            return self.lost
        except RequestError as error:
            return error
        except Exception as error:  # a store's package can raise anything
            how = f"{self._copy.folder} holds all of it, and the same command pushes it"
            url = self._copy.store.url
            return RequestError("workdir", url, f"it did not take the last of the run ({said(error)}); {how}")
        finally:
            self._ended.set()

    def _push(self) -> None:
        url = self._copy.store.url
        try:
            self._copy.push(self._claim, self._ends.is_set)
        except RequestError:
            raise
        except Exception as error:  # a store's package can raise anything
            if not self._is_silent:
                how = f"the run goes on, and every {EVERY:.0f} seconds it is tried again"
                self._progress.note(f"{url} does not take what is new ({said(error)}); {how}")
            self._is_silent = True
        else:
            if self._is_silent:
                self._progress.note(f"{url} takes what is new again")
            self._is_silent = False

    def _start(self, every: float, function: Callable[[], None], end: threading.Event) -> threading.Thread:
        def go_on() -> None:
            while not end.wait(every):
                try:
                    function()
                except RequestError as error:
                    if self.lost is None and not self._ends.is_set():
                        self.lost = error
                        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                    return
                except Exception:  # the store does not answer: a push will say so
                    continue

        thread = threading.Thread(target=go_on, daemon=True)
        thread.start()
        return thread
