"""The output of a notebook's cell: one that is replaced, never hundreds of lines."""

import sys
from types import SimpleNamespace

import pytest

from cnnjax.utils.notebook import CellOutput, cell_output
from cnnjax.utils.progress import Progress, tracked


class Notebook:
    """Records what is displayed, as IPython's `display` and its handle do."""

    def __init__(self):
        self.contents = []
        self.outputs = 0

    def display(self, content, *, raw, display_id):
        assert raw and display_id
        self.outputs += 1
        self.update(content, raw=True)
        return self

    def update(self, content, *, raw):
        assert raw
        self.contents.append(content)

    @property
    def text(self):
        return self.contents[-1]["text/plain"].splitlines()


@pytest.fixture
def notebook(monkeypatch):
    """A notebook in which the code runs."""
    found = Notebook()
    display = SimpleNamespace(display=found.display)
    ipython = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=None), display=display)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return found


def test_a_study_is_one_output_of_a_few_lines(notebook, capsys):
    with Progress() as progress:
        progress.begin(programs=2, members=4, images=[1000, 1000])
        for program in (1, 2):
            progress.program(program, "baseline", "sgd", 64, members=2)
            assert notebook.text[-1] == f"[{program}/2] compiling"  # said at once: it may take long
            progress.compiled(1.0)
            for epoch in range(1, 1001):
                progress.epoch(epoch, 1000, [0.5, 0.6], [0.9, 0.9], 1, 0.001, "members 1-2")
            progress.note("<kept>")
        assert len(notebook.text) == 5
        progress.end()
    assert notebook.outputs == 1 and len(notebook.contents) < 200  # a notebook limits the rate of messages
    first, note, other, last = notebook.text
    assert first == "2 programs, 4 members, 2,000 images" and note == other == "<kept>"
    assert last.startswith("2,000 images in ")
    final = notebook.contents[-1]["text/html"]
    assert "&lt;kept&gt;" in final and "<progress" not in final
    assert capsys.readouterr() == ("", "")


def test_the_bar_shows_how_much_is_done(notebook):
    with Progress() as progress:
        progress.begin(1, 1, [100])
        progress.program(1, "baseline", "sgd", 64, members=1)
        assert 'value="0" max="100"' in notebook.contents[-1]["text/html"]
    assert "<progress" not in notebook.contents[-1]["text/html"]


def test_nothing_is_shown_if_it_is_not_asked_for(notebook, capsys):
    with Progress(is_shown=False) as progress:
        progress.begin(1, 1, [100])
        progress.end()
    assert notebook.contents == [] and capsys.readouterr() == ("", "")


def test_what_takes_long_is_a_line_that_is_replaced(notebook, capsys):
    seconds = iter(range(100))
    assert list(tracked(range(30), "reading", clock=lambda: next(seconds))) == [*range(30)]
    lines = [content["text/plain"] for content in notebook.contents]
    assert notebook.outputs == 1 and lines[0].startswith("reading: 1 of 30") and lines[-1] == ""
    assert capsys.readouterr() == ("", "")


def test_frequent_lines_are_left_out_until_some_time_has_passed():
    now, notebook = [0.0], Notebook()
    cell = CellOutput(notebook.display, lambda: now[0])
    for step in range(100):
        now[0] = step / 64
        cell.show([str(step)], is_frequent=True)
    assert [content["text/plain"] for content in notebook.contents] == ["0", "13", "26", "39", "52", "65", "78", "91"]


def test_a_terminal_is_no_notebook(monkeypatch):
    assert cell_output() is None
    for shell in (None, SimpleNamespace()):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert cell_output() is None
