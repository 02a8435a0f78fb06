"""What comes from elsewhere is refused cleanly: a short round of tests/campaigns/fuzz.py, and too large requests."""

import json
import time

import numpy as np
import pytest

from cnnjax.analysis.read import read_run
from cnnjax.data.load import load_dataset
from cnnjax.runs import integrity
from cnnjax.study.plan import make_plan
from cnnjax.study.schema import DataConfig, from_config
from cnnjax.utils.errors import RequestError
from tests.campaigns.fuzz import PARSERS, fuzz
from tests.support.made_up_run import make_config, make_run


@pytest.mark.parametrize("parser", PARSERS)
def test_a_parser_answers_or_refuses_in_one_line(parser):
    assert list(fuzz(parser, 200, seed=1)) == []


def test_a_fault_is_noticed(monkeypatch):
    """The fuzzer itself: a parser that trusts its input does not get through."""
    make, _ = PARSERS["run"]
    monkeypatch.setitem(PARSERS, "trusting", (make, lambda data, _: json.loads(data)))
    assert any(isinstance(error, ValueError) for _, error in fuzz("trusting", 50))


def test_requests_that_would_take_all_memory_or_time_are_refused_at_once(tmp_path):
    many = list(range(1000))
    start = time.monotonic()
    rates = [0.001 * (number + 1) for number in many]
    study = from_config({"seeds": many[1:], "train": {"learning_rate": rates, "epochs": many[1:]}})
    with pytest.raises(RequestError, match=r"^train\.learning_rate=.*998,001,000 trials; use at most 100,000"):
        make_plan(study)
    for group, key in (("train", "epochs"), ("checkpoint", "every")):
        with pytest.raises(RequestError, match=rf"{group}\.{key}: 1000000000000"):
            from_config({group: {key: 10**12}})
    np.savez(tmp_path / "x.npz", images=np.zeros((100_000, 1, 1), np.uint8), labels=np.arange(100_000) % 2)
    with pytest.raises(RequestError, match=r"data\.image_size=4096.*would take 1,.* GB; use at most the"):
        load_dataset(DataConfig(validation=0, path=str(tmp_path / "x.npz"), image_size=4096))
    assert time.monotonic() - start < 30


def test_a_trial_is_no_path(tmp_path):
    folder = make_run(tmp_path / "run", make_config([0]))
    text = (folder / "trials.csv").read_text()
    (folder / "trials.csv").write_text(text.replace("t0000", "../../t0000"))
    with pytest.raises(RequestError, match=r"trials\.csv.*'\.\./\.\./t0000'"):
        read_run(folder)


def test_a_header_that_is_no_csv_damages_every_row(tmp_path):
    (tmp_path / "trials.csv").write_bytes(b"trial\rmember,crc32\na,b,c\nd,e,f\n")
    assert integrity.read_rows(tmp_path / "trials.csv") == ([], [2, 3])


def test_a_record_is_sealed_whatever_the_order_of_its_keys():
    record = {"b": [1, 2.5, None], "a": {"x": "ü"}}
    written = integrity.seal(record)
    assert list(written) == ["b", "a", "crc32"]
    assert integrity.unseal(dict(reversed(written.items()))) == record
    for changed in (written | {"b": [1, 2.4, None]}, written | {"c": 0}, {**written, "crc32": "00000000"}):
        with pytest.raises(ValueError, match="checksum"):
            integrity.unseal(changed)
    assert integrity.unseal(record) == record
