"""Compiling in threads while programs train."""

import threading
from types import SimpleNamespace

import pytest

from cnnjax.training.compiler import Compiler
from cnnjax.utils.errors import RequestError

PROGRAMS = [SimpleNamespace(id=name) for name in "abcdef"]


class Recorded(Compiler):
    """Compiles nothing, but notes which programs have begun to compile, and in which threads."""

    def __init__(self, fails=None):
        self._profile, self.fails, self.begun, self.threads = None, fails, [], set()

    def compile(self, program, members, layout=(), mesh=()):
        self.begun.append(program.id)
        self.threads.add(threading.current_thread())
        if program.id == self.fails:
            raise RequestError("model", program.id, "it does not compile")
        return program.id


def test_programs_come_in_their_order_and_the_next_ones_compile_in_threads(monkeypatch):
    monkeypatch.setattr("cnnjax.multihost.processes.usable_cores", lambda: 2)
    compiler = Recorded()
    seen = []
    for name in compiler.compile_all(PROGRAMS, {}, lambda name: ([], ())):
        seen.append(name)
        assert len(compiler.begun) <= len(seen) + 1  # only so many compiled programs take memory
    assert seen == [*"abcdef"]
    assert sorted(compiler.begun) == seen and threading.current_thread() not in compiler.threads


def test_an_error_waits_for_the_turn_of_its_program():
    results = Recorded(fails="b").compile_all(PROGRAMS, {}, lambda name: ([], ()))
    assert next(results) == "a"
    with pytest.raises(RequestError, match="it does not compile"):
        next(results)


def test_a_caller_that_stops_compiles_no_further_programs(monkeypatch):
    monkeypatch.setattr("cnnjax.multihost.processes.usable_cores", lambda: 2)
    compiler = Recorded()
    results = compiler.compile_all(PROGRAMS, {}, lambda name: ([], ()))
    next(results)
    results.close()
    assert len(compiler.begun) <= 2


def test_several_processes_compile_one_program_at_a_time(monkeypatch):
    monkeypatch.setattr("cnnjax.multihost.processes.count", lambda: 2)
    compiler = Recorded()
    results = compiler.compile_all(PROGRAMS, {}, lambda name: ([], ()))
    assert next(results) == "a" and compiler.begun == ["a"]
