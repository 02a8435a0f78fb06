"""Progress: a live display on a terminal, plain lines elsewhere."""

import contextlib
import io
import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from cnnjax.commands import run
from cnnjax.training.population import Population
from cnnjax.utils.progress import Progress, duration, tracked
from tests.support.studies import make_study


class Output(io.StringIO):
    """Remembers what a reader of a pipe would have seen by now."""

    seen = ""

    def flush(self):
        self.seen = self.getvalue()


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def narrate(progress, clock):
    """A study of two programs of 8 members: 400 images in all, of which 100 are seen in 50 s."""
    progress.begin(programs=2, members=16, images=[200, 200])
    progress.program(1, "complex", "sgd", 64, members=8)
    clock.now = 40.0
    progress.compiled(40.0)
    clock.now = 50.0
    progress.epoch(1, 2, [0.5, math.nan, 1.25], [0.81, 0.1, 0.9], 100, 10.0, "members 1-8")


@pytest.fixture
def plain():
    output, clock = Output(), Clock()
    console = Console(file=output, force_terminal=False, width=40)
    return Progress(console, clock), output, clock


def test_plain_lines_one_per_update_and_flushed(plain):
    progress, output, clock = plain
    narrate(progress, clock)
    assert output.seen.splitlines() == [
        "2 programs, 16 members, 400 images",
        "[1/2] complex, sgd, batch size 64: 8 members",
        "[1/2] compiling",
        "[1/2] compiled in 40.0 s",
        "[1/2] members 1-8 epoch 1/2  loss 0.5..1.25 (1 diverged)  accuracy 10.0..90.0 %  "
        "10 images/s  about 1 min 10 s left",  # 300 images at 100 in 10 s, and another program that compiles in 40 s
    ]
    progress.note("[bold] is a word")
    clock.now = 200.0
    progress.epoch(2, 2, [0.5], [0.9], 300, 1.0, "member 1")
    progress.end()
    note, last, end = output.seen.splitlines()[5:]
    assert note == "[bold] is a word"
    assert last.endswith("loss 0.5  accuracy 90.0 %  300 images/s")  # nothing is left
    assert end == "400 images in 3 min 20 s, 2 images/s"
    assert "\x1b" not in output.seen


def test_the_time_left_weighs_programs_by_their_operations(plain):
    """Images of the second program cost 20 times as much; images that were seen before do not count."""
    progress, output, clock = plain
    progress.begin(2, 4, [100, 200], costs=[1.0, 20.0])
    progress.program(1, "complex", "sgd", 64, members=2)
    progress.compiled(0.0)
    progress.skip(50)
    clock.now = 5.0
    progress.epoch(1, 1, [0.5], [0.9], 50, 5.0, "members 1-2")
    assert output.seen.splitlines()[-1].endswith("about 6 min 40 s left")  # 200 images of 2 s
    progress.program(2, "complex", "sgd", 64, members=2)
    progress.compiled(0.0)
    clock.now = 205.0
    progress.epoch(1, 2, [0.5], [0.9], 100, 200.0, "members 3-4")
    assert output.seen.splitlines()[-1].endswith("about 3 min 20 s left")


def test_the_time_left_has_what_is_not_compiled_and_not_begun(plain):
    """The second program compiles three times as long, and everything takes twice the expected time."""
    progress, output, clock = plain
    progress.begin(2, 4, [100, 100], costs=[0.1, 0.2], compiling=[5.0, 15.0])
    progress.program(1, "medium", "sgd", 64, members=2)
    progress.compiled(10.0)
    clock.now = 10.0 + 10.0 + 3.0  # and 3 s to write
    progress.epoch(1, 2, [0.5], [0.9], 50, 10.0, "members 1-2")
    assert output.seen.splitlines()[-1].endswith("about 1 min 23 s left")  # 10 + 40 to train, 30 to compile, 3 to write
    progress.skip(50)
    progress.program(2, "complex", "sgd", 64, members=2)
    progress.compiled(30.0)
    clock.now = 23.0 + 30.0 + 20.0
    progress.epoch(1, 2, [0.5], [0.9], 50, 20.0, "members 3-4")
    assert output.seen.splitlines()[-1].endswith("about 20 s left")


def test_programs_side_by_side_take_the_time_of_one(plain):
    progress, output, clock = plain
    progress.begin(2, 4, [100, 100], costs=[1.0, 1.0], compiling=[1.0, 1.0])
    for index in (1, 2):
        progress.turn(index)
        progress.compiled(10.0)
    clock.now = 30.0
    for index in (1, 2):
        progress.turn(index)
        progress.epoch(1, 2, [0.5], [0.9], 50, 20.0, "members")
    assert output.seen.splitlines()[-1].endswith("about 20 s left")


@pytest.mark.slow
def test_what_is_left_is_right_whenever_a_study_is_interrupted(tmp_path, quick, rough, monkeypatch):
    """Members of a batch train for different numbers of epochs, and some have finished when the study is resumed."""
    study = make_study(seeds=(0, 1), train={"epochs": (1, 6), "learning_rate": (0.02, 0.05), "batch_size": (50, 100)})
    advance, said, left = Population.advance, [], []

    class Watched(Progress):
        def epoch(self, *arguments):
            super().epoch(*arguments)
            left.append(self._images - self._seen)

    for stop in (None, 3):

        def crash(self, state, *arguments, stop=stop):
            if stop is not None and int(np.asarray(state.epoch)[0]) == stop:
                raise KeyboardInterrupt
            return advance(self, state, *arguments)

        monkeypatch.setattr(Population, "advance", crash)
        workdir = tmp_path / str(stop)
        with contextlib.suppress(KeyboardInterrupt), Watched(Console(file=io.StringIO())) as progress:
            run.run(study, workdir, progress=progress)
        monkeypatch.setattr(Population, "advance", advance)
        said.append(list(left))
        left.clear()
    with Watched(Console(file=io.StringIO())) as progress:
        run.run(study, workdir, progress=progress)
    assert said[0][-1] == 0 and said[0] == sorted(said[0], reverse=True)
    assert left == said[0][-len(left) :]


def test_a_second_study_begins_at_nothing(plain):
    progress, output, clock = plain
    for _ in range(2):
        narrate(progress, clock)
        clock.now = 0.0
    lines = output.seen.splitlines()
    assert lines[:5] == lines[5:]


def test_a_population_that_diverged(plain):
    progress, output, _ = plain
    progress.begin(1, 2, [10])
    progress.epoch(1, 1, [math.nan, math.inf], [math.nan, math.nan], 10, 0.0, "members 1-2")
    assert "loss - (2 diverged)  accuracy - %  - images/s" in output.seen


def test_a_finished_study_has_nothing_to_sum_up(plain):
    progress, output, _ = plain
    progress.begin(0, 0, [])
    progress.end()
    assert output.seen == "0 programs, 0 members, 0 images\n"


def test_a_terminal_gets_a_live_line_and_keeps_the_notes():
    output, clock = io.StringIO(), Clock()
    console = Console(file=output, force_terminal=True, width=120, _environ={"TERM": "xterm"})
    with Progress(console, clock) as progress:
        narrate(progress, clock)
        progress.note("kept")
        shown = output.getvalue()
        assert "\x1b[?25l" in shown  # the cursor is hidden
        assert "about 1 min 10 s left" in shown and "━" in shown
        raised = pytest.raises(KeyboardInterrupt)
        with raised, progress:
            raise KeyboardInterrupt
    assert output.getvalue().rindex("\x1b[?25h") > output.getvalue().rindex("\x1b[?25l")
    assert "kept" in output.getvalue()


def test_force_color_is_no_terminal():
    script = "from cnnjax.utils.progress import Progress; p = Progress(); p.begin(1, 1, [1]); p.end()"
    done = subprocess.run([sys.executable, "-c", script], env={"FORCE_COLOR": "1"}, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "1 program, 1 member, 1 images\n")


def test_what_takes_long_is_said_in_lines_where_there_is_no_terminal(capsys):
    seconds = itertools.count()  # an item a second
    assert list(tracked("abcdefghijklmnopqrst", "reading", clock=lambda: next(seconds))) == list("abcdefghijklmnopqrst")
    said = ["reading: 1 of 20, about 38 s left", "reading: 11 of 20, about 10 s left"]
    assert capsys.readouterr().err.splitlines() == said
    list(tracked(range(9), "quick"))
    list(tracked(iter(range(3)), "counted", 3000, clock=iter([0, 1, 1.5, 2]).__next__))
    assert capsys.readouterr().err == "counted: 2 of 3,000, about 49 min 58 s left\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (4800, "1 h 20 min")],
)
def test_duration(seconds, words):
    assert duration(seconds) == words
