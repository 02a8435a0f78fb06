"""Paths from the user: a wrong path is reported in one line with its key."""

import subprocess
import sys
from pathlib import Path

import pytest

from cnnjax.data import load_dataset
from cnnjax.data.readers.unlabeled import read_unlabeled
from cnnjax.runs import remote
from cnnjax.study.overrides import load_study
from cnnjax.study.schema import DataConfig
from cnnjax.utils.errors import RequestError
from cnnjax.utils.paths import expanded, make_folder

WRONG = [
    ("~nosuchuser/x", "there is no such user"),
    ("a" * 300, "File name too long"),
    ("caf\udce9", r"'caf\udce9': its name is not UTF-8"),
]


def test_a_path_is_expanded_and_need_not_be_there(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert expanded("--output", "~/x/y.csv") == Path("/home/someone/x/y.csv")
    assert expanded("--output", Path("x")) == Path("x")


@pytest.mark.parametrize(("path", "named"), WRONG)
@pytest.mark.parametrize(
    ("key", "use"),
    [
        ("--output", lambda path: expanded("--output", path)),
        ("--config", load_study),
        ("--input", read_unlabeled),
        ("data.path", lambda path: load_dataset(DataConfig(validation=0, path=path))),
        ("workdir", remote.copied),
    ],
)
def test_what_cannot_be_a_path_is_one_line_under_its_key(path, named, key, use):
    with pytest.raises(RequestError) as refused:
        use(path)
    message = str(refused.value)
    assert message.startswith((f"{key}=", f"{key} must ")) and named in message and "\n" not in message


@pytest.mark.parametrize(("path", "named"), [("file", "File exists"), ("file/below", "Not a directory")])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, path, named):
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match=rf"^--output=.*{named}; use a folder"):
        make_folder("--output", tmp_path / path)


@pytest.mark.parametrize("path", ["a" * 300, "file/below"])
def test_a_path_that_no_reader_has_looked_at_is_one_line_too(tmp_path, path):
    (tmp_path / "file").touch()
    script = "from cnnjax.utils import cli\ncli.run(lambda path: open(path, 'w'), lambda argv: argv[1])"
    command = [sys.executable, "-c", script, path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: ") and path in done.stderr
