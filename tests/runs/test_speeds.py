"""The speeds that runs leave in the user's cache folder."""

import json

import pytest

from cnnjax.runs import speeds
from cnnjax.runs.speeds import Speed, add_speed, read_speeds

ENTRY = Speed("cpu", 2, "tiny", 3, 1e6, "adam", "float32", 32, 6, 1000.0, 4.0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "speeds.json"


def test_the_newest_entry_of_a_program_is_kept(cache):
    assert read_speeds() == []
    add_speed(ENTRY)
    add_speed(ENTRY._replace(batch_size=64))
    add_speed(ENTRY._replace(images_per_second=2000.0))
    assert read_speeds() == [ENTRY._replace(batch_size=64), ENTRY._replace(images_per_second=2000.0)]
    assert [path.name for path in cache.parent.iterdir()] == ["speeds.json"]


def test_the_file_is_bounded(monkeypatch):
    monkeypatch.setattr(speeds, "_MOST", 3)
    for size in range(1, 6):
        add_speed(ENTRY._replace(batch_size=size))
    assert [speed.batch_size for speed in read_speeds()] == [3, 4, 5]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b'{"speeds": 5}', b'{"speeds": [5, [], ["cpu"]]}', b'{"speeds": {}}', b"null"],
)
def test_a_damaged_file_counts_as_none_and_is_replaced(cache, content):
    cache.parent.mkdir()
    cache.write_bytes(content)
    assert read_speeds() == []
    add_speed(ENTRY)
    assert read_speeds() == [ENTRY]


@pytest.mark.parametrize(
    ("field", "value"),
    [("images_per_second", 0.0), ("images_per_second", float("nan")), ("work", -1.0), ("devices", "two"), ("model", 7)],
)
def test_an_entry_that_no_run_can_have_written_is_left_out(cache, field, value):
    cache.parent.mkdir()
    cache.write_text(json.dumps({"speeds": [[*ENTRY._replace(**{field: value})], [*ENTRY]]}))
    assert read_speeds() == [ENTRY]
    add_speed(ENTRY._replace(**{field: value}))
    assert read_speeds() == [ENTRY]


def test_a_cache_that_cannot_be_written_is_ignored(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CNNJAX_CACHE", str(tmp_path / "file"))
    add_speed(ENTRY)
    assert read_speeds() == []
