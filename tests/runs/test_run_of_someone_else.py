"""A run's folder from someone else: nothing in it is a traceback, takes all memory or time, or leads out of it."""

import copy
import json
import os
import random
import shutil
import time
import zipfile

import numpy as np
import psutil
import pytest

import cnnjax
from cnnjax.analysis.read import read_run
from cnnjax.report import build_report, summarize_run
from cnnjax.runs.integrity import add_checksum
from cnnjax.utils.errors import RequestError
from tests.support.made_up_run import make_config, make_run
from tests.support.runs import run
from tests.support.studies import make_study

OTHERS = (None, "x", "x" * 1_000_000, -1, 1e308, 10**12, 10**400, True, [], [[0]], {}, {"x": [None]})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("made") / "run", make_config([0, 1]), examples=40)


def places(value, place=()):
    """Yields the path of each value in nested mappings and lists, of lists the first."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in items:
        yield (*place, key)
        yield from places(item, (*place, key))


def changed(value, place, other):
    """A copy of nested values with another one in one place."""
    value = copy.deepcopy(value)
    inside = value
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = other
    return value


def assert_read_or_refused(folder, what, read):
    start = time.monotonic()
    try:
        read(folder)
    except RequestError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000, what
    except Exception as error:
        raise AssertionError(what) from error
    assert time.monotonic() - start < 20, what


def variants(folder):
    """Yields what was changed, and the file's new content, for each value of each JSON file."""
    for name in ("config", "data", "plan", "environment"):
        content = json.loads((folder / f"{name}.json").read_text())
        for place in places(content):
            for other in OTHERS:
                yield f"{name}.json", place, other, json.dumps(add_checksum(changed(content, place, other)))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    for place in places(json.loads(lines[0])):
        for other in OTHERS:
            line = json.dumps(add_checksum(changed(json.loads(lines[0]), place, other)))
            yield "metrics.jsonl", place, other, "\n".join([line, *lines[1:]]) + "\n"
    header, row, *rows = (folder / "trials.csv").read_text().splitlines()
    for column, name in enumerate(header.split(",")):
        for other in ("", "x", "x" * 1_000_000, "-1", "1e308", "1" * 5000, str(10**12), "nan", "True", "[0]"):
            cells = row.split(",")
            cells[column] = other
            yield "trials.csv", (name,), other, "\n".join([header, ",".join(cells), *rows]) + "\n"


def read_much(folder):
    found = read_run(folder)
    (
        found.configurations,
        found.ranked,
        found.varying,
        found.crossed,
        found.planned,
        found.seed_std([0], "test_accuracy"),
    )
    summarize_run(folder)


@pytest.mark.slow
def test_a_value_of_another_type_is_read_or_refused_in_one_line(made, tmp_path):
    """A sample of every value of every file, by every other; some by the whole report."""
    folder, every = tmp_path / "run", list(variants(made))
    assert len(every) > 800
    shutil.copytree(made, folder)
    for number, (name, place, other, text) in enumerate(random.Random(0).sample(every, 150)):
        (folder / name).write_text(text)
        what = f"{name} {place} {str(other)[:20]!r}"
        assert_read_or_refused(folder, what, read_much if number % 30 else build_report)
        shutil.copy(made / name, folder / name)


@pytest.mark.parametrize("name", ["logits", "labels", "images"])
def test_an_array_that_inflates_is_refused_by_its_header(made, tmp_path, name):
    folder = tmp_path / "run"
    shutil.copytree(made, folder)
    file, shape, kind = {
        "logits": ("t0000", (2**28, 10), "<f2"),
        "labels": ("labels", (2**31,), "|u1"),
        "images": ("images", (2**21, 32, 32, 1), "|u1"),
    }[name]
    path = folder / f"predictions/{file}.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{name}.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(member, {"shape": shape, "fortran_order": False, "descr": kind})
        member.write(bytes(1 << 20))
    before, start = psutil.Process().memory_info().rss, time.monotonic()
    with pytest.raises(RequestError, match=rf"{file}\.npz.*{name}"):
        build_report(folder)
    assert psutil.Process().memory_info().rss - before < 5e8 and time.monotonic() - start < 20


LINKS = (
    "report",
    "report/index.html",
    "metrics.jsonl",
    "trials.csv",
    ".lock",
    "predictions",
    "config.json",
    "plan.json",
)


@pytest.mark.parametrize("name", LINKS)
def test_a_link_out_of_the_folder_is_refused_and_what_it_names_stays(made, tmp_path, name):
    folder, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(made, folder)
    (folder / "report").mkdir()
    (folder / "report/index.html").touch()
    (folder / ".lock").touch()
    place = folder / name
    place.rename(outside)
    place.symlink_to(outside)
    before = outside.read_bytes() if outside.is_file() else sorted(outside.iterdir())
    study = make_study(train={"epochs": 1})
    for use in (build_report, read_run, lambda folder: run(study, folder), lambda f: run(study, f, overwrite=True)):
        with pytest.raises(RequestError, match=rf"{name}': it is a link to {outside}"):
            use(folder)
    assert before == (outside.read_bytes() if outside.is_file() else sorted(outside.iterdir()))


@pytest.mark.slow
def test_a_link_out_of_the_checkpoints_is_refused(tmp_path, quick):
    study = make_study(train={"epochs": 1})
    run(study, tmp_path / "run")
    (chunk,) = (tmp_path / "run/checkpoints").glob("*/m*")
    chunk.rename(tmp_path / "outside")
    chunk.symlink_to(tmp_path / "outside")
    for use in (lambda folder: run(study, folder), lambda folder: cnnjax.load_trial(folder, "t3f9")):
        with pytest.raises(RequestError, match=r"it is a link to .*outside; use links into the folder only"):
            use(tmp_path / "run")


def test_a_link_within_the_folder_and_a_run_behind_a_link_are_allowed(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    (tmp_path / "run/trials.csv").rename(tmp_path / "run/kept.csv")
    (tmp_path / "run/trials.csv").symlink_to("kept.csv")
    (tmp_path / "link").symlink_to("run")
    assert len(read_run(tmp_path / "link").trials) == len(read_run(made).trials)


def test_a_pipe_in_the_place_of_a_file_is_refused(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    (tmp_path / "run/metrics.jsonl").unlink()
    os.mkfifo(tmp_path / "run/metrics.jsonl")
    with pytest.raises(RequestError, match=r"metrics\.jsonl': it is a device or a pipe"):
        read_run(tmp_path / "run")
