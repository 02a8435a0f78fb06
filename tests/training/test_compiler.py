"""Compiling in threads while programs train."""

import threading
from types import SimpleNamespace

import pytest

from cnnjax.training.compiler import Compiler
from cnnjax.utils.errors import RequestError


class Recorded(Compiler):
    """Compiles nothing, but notes which programs are to compile, and in which threads."""

    def __init__(self, names, fails=None):
        self._profile, self._is_adaptive, self.fails = None, True, fails
        self.begun, self.threads = [], set()
        programs = [SimpleNamespace(id=name) for name in names]
        self.results = self.compile_all(programs, {}, self.begun.append)

    def _static(self, program):
        return program.id[0]

    def compile(self, program, members, layout=()):
        self.threads.add(threading.current_thread())
        if program.id == self.fails:
            raise RequestError("model", program.id, "it does not compile")
        return program.id


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr("cnnjax.multihost.processes.usable_cores", lambda: 2)


def test_programs_come_in_their_order_and_the_next_two_compile_in_threads():
    compiler = Recorded("abcdef")
    for number, name in enumerate(compiler.results):
        assert name == "abcdef"[number] and compiler.begun == [*"abcdef"[: number + 3]]
    assert number == 5 and threading.current_thread() not in compiler.threads


def test_programs_that_share_functions_count_as_one():
    compiler = Recorded(("a1", "b1", "a2", "b2", "c1", "d1"))
    assert next(compiler.results) == "a1" and compiler.begun == ["a1", "b1", "a2", "b2", "c1"]
    compiler.results.close()


def test_an_error_waits_for_the_turn_of_its_program():
    results = Recorded("abc", fails="b").results
    assert next(results) == "a"
    with pytest.raises(RequestError, match="it does not compile"):
        next(results)


def test_several_processes_compile_one_program_at_a_time(monkeypatch):
    monkeypatch.setattr("cnnjax.multihost.processes.count", lambda: 2)
    compiler = Recorded("abc")
    for number, _ in enumerate(compiler.results, 1):
        assert compiler.begun == [*"abc"[:number]]
