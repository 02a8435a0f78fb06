"""Overrides: how a value is read, where it goes, and that nothing but RequestError comes out."""

import warnings
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cnnjax.runs import remote
from cnnjax.study.overrides import load_study, read_value
from cnnjax.study.plan import make_plan
from cnnjax.study.schema import from_config
from cnnjax.utils.cli import split_overrides
from cnnjax.utils.errors import RequestError
from cnnjax.utils.progress import Progress

CONFIGS = Path(__file__).parents[2] / "configs"
QUICKSTART = str(CONFIGS / "quickstart.py")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ()),
        ("  ", ()),
        ("5", 5),
        ("-1e-3", -1e-3),
        ("5,6,7", (5, 6, 7)),
        ("5,", (5,)),
        ("(5, 6)", (5, 6)),
        ("[5, 6]", [5, 6]),
        ("None", None),
        ("None,0.5", (None, 0.5)),
        ("True", True),
        ("sgd", "sgd"),
        ("sgd,", ("sgd",)),
        ("adam, sgd", ("adam", "sgd")),
        ("('adam', 'sgd')", ("adam", "sgd")),
        ("flip,None", ("flip", None)),
        ("'5'", "5"),
        ("data/my images", "data/my images"),
        ("a=b", "a=b"),
    ],
)
def test_read_value(text, value):
    read = read_value(text)
    assert read == value and type(read) is type(value)


def test_split_overrides():
    argv = ["launch", "--config=c.py", "--config.seeds=5,6", "--plan", "--config.a.b", "-1", "-v"]
    known, overrides = split_overrides([*argv, "--config.data.augment="])
    assert known == ["launch", "--config=c.py", "--plan", "-v"]
    assert overrides == ["seeds=5,6", "a.b=-1", "data.augment="]


@pytest.mark.parametrize("argv", [["--config.seeds"], ["--config.seeds", "--plan"]])
def test_an_override_needs_a_value(argv):
    with pytest.raises(RequestError, match=r"--config\.seeds.*needs a value"):
        split_overrides(argv)


def test_overrides_reach_the_study():
    overrides = [
        "seeds=5,6,7",
        "train.epochs=5,10",
        "train.optimizer=sgd",
        "train.weight_decay=0,0.1",  # the config leaves this key out
        "streams.init=3",  # and this group
        "data.augment=flip",
        "data.augment=",  # the last one counts
        "data.path=some where",
    ]
    study = load_study(QUICKSTART, overrides)
    assert study.seeds == (5, 6, 7)
    assert study.train.epochs == (5, 10)
    assert study.train.optimizer == ("sgd",)
    assert study.train.weight_decay == (0, 0.1)
    assert study.streams.init == (3,)
    assert study.data.augment == ((),)
    assert study.data.path == "some where"
    untouched = load_study(QUICKSTART)
    assert study.models == untouched.models
    assert study.train.learning_rate == untouched.train.learning_rate
    assert untouched.seeds == (0, 1, 2)


def write_config(folder: Path, body: str) -> str:
    path = folder / "own.py"
    path.write_text(f"import numpy as np\nfrom pathlib import Path\n\ndef get_config(arg=''):\n    {body}\n")
    return str(path)


def test_a_config_may_hold_ranges_arrays_and_paths(tmp_path):
    train = (
        "{'learning_rate': np.logspace(-3, -1, 3), 'epochs': np.int64(2), 'stages': ({'momentum': np.float32(0.5)},)}"
    )
    body = f"return {{'seeds': range(3), 'data': {{'path': Path('my') / 'images'}}, 'train': {train}}}"
    study = load_study(write_config(tmp_path, body))
    expected = {"seeds": [0, 1, 2], "data": {"path": "my/images"}}
    expected["train"] = {"learning_rate": [0.001, 0.01, 0.1], "epochs": 2, "stages": [{"momentum": 0.5}]}
    assert study == from_config(expected)
    assert repr(study) == repr(from_config(expected))  # NumPy's numbers equal Python's, and are written otherwise


def test_home_is_where_a_config_and_a_folder_may_be(tmp_path, monkeypatch):
    """No shell expands --workdir=~/run: a folder named ~ is what its owner deletes next."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write_config(tmp_path, "return {'seeds': 7}")
    assert load_study("~/own.py").seeds == (7,)
    assert remote.copied("~/run") == tmp_path / "run"
    with remote.local_copy("~/run", Progress(is_shown=False)) as folder:
        assert folder == tmp_path / "run"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("pass", "returned None; use a ConfigDict"),  # its author forgot to return it
        ("return 3", "returned 3; use a ConfigDict"),
        ("raise KeyError('x')", "raised KeyError: 'x'"),
        ("raise SystemExit(3)", "raised SystemExit: 3"),
        ("return (", "raised SyntaxError: '(' was never closed"),
    ],
)
def test_a_config_that_gives_no_study_is_refused(tmp_path, body, words):
    with pytest.raises(RequestError) as error:
        load_study(write_config(tmp_path, body))
    assert words in str(error.value) and "own.py" in str(error.value)


KEYS = ("seeds", "models", "select", "data", "data.name", "data.validation", "data.augment")
KEYS += ("train", "train.epochs", "train.learning_rate", "streams.init", "checkpoint.every", "")
PIECES = st.sampled_from(
    ("0", "1", "-1", "1e9", "1e-3", "nan", "inf", "None", "True", "sgd", "flip", " ", "\n", ".") + tuple(",()[]{}:'=")
)
TEXTS = st.text(max_size=20) | st.lists(PIECES, max_size=6).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KEYS) | st.text(max_size=8), TEXTS), max_size=3))
def test_whatever_is_overridden_only_a_request_error_comes_out(pairs):
    try:
        study = load_study(QUICKSTART, [f"{key}={text}" for key, text in pairs])
    except RequestError as error:
        assert str(error)
    else:
        assert from_config(study.to_dict()) == study


def test_test_images_are_augmented_only_where_it_is_said_how():
    assert load_study(QUICKSTART, ["data.augment=flip", "data.augment_test=True"]).data.augment_test
    with pytest.raises(RequestError, match="augment_test=True"):
        load_study(QUICKSTART, ["data.augment_test=True"])


@pytest.mark.parametrize("key", ["data.validation", "train.learning_rate"])
def test_a_huge_number_is_a_request_error(key):
    with pytest.raises(RequestError, match=key):
        load_study(QUICKSTART, [f"{key}=1{'0' * 400}"])


@given(TEXTS)
@example("1or 2")
@example("'\\d'")
def test_every_text_is_a_value_and_none_warns(text):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_value(text)
    assert caught == []


@pytest.mark.parametrize("text", ["(" * 5000, "9" * 5000, "-" * 50000 + "1", "[" * 150 + "]" * 150])
def test_texts_that_break_parsers_are_values_too(text):
    read_value(text)


@pytest.mark.parametrize(
    ("name", "trials", "trained", "programs"),
    [
        ("quickstart", 36, 36, 6),
        ("grid", 240, 120, 12),
        ("seeds", 5, 5, 1),
        ("variance", 729, 243, 1),
        ("learning_rates", 12, 12, 1),
        ("regularisation", 30, 30, 10),
        ("depth", 27, 27, 9),
        ("lenets", 30, 15, 5),
        ("resnets", 12, 12, 4),
        ("quickstart:smoke", 12, 12, 6),
        ("grid:smoke", 48, 24, 6),
        ("seeds:smoke", 2, 2, 1),
        ("variance:smoke", 64, 32, 1),
        ("learning_rates:smoke", 8, 8, 1),
        ("regularisation:smoke", 20, 20, 10),
        ("depth:smoke", 18, 18, 9),
        ("lenets:smoke", 20, 10, 5),
        ("resnets:smoke", 4, 4, 4),
    ],
)
def test_configs(name, trials, trained, programs):
    path, _, argument = name.partition(":")
    study = load_study(f"{CONFIGS}/{path}.py:{argument}")
    plan = make_plan(study)
    assert (len(plan.trials), plan.trained, len(plan.programs)) == (trials, trained, programs)
    with pytest.raises(RequestError, match="'tiny'"):
        load_study(f"{CONFIGS}/{path}.py:tiny")
    if argument:  # the same study: what it compares and selects by stays
        full = load_study(f"{CONFIGS}/{path}.py")
        assert (study.models, study.select) == (full.models, full.select)
        assert study.train.optimizer == full.train.optimizer
        assert study.train.learning_rate == full.train.learning_rate


@pytest.mark.parametrize(
    ("name", "trials", "optimizer"),
    [
        ("learning_rates:base", 12, "sgd"),
        ("regularisation:sgd", 6, "sgd"),
        ("regularisation:l2", 6, "adam"),
        ("regularisation:final", 3, "adam+sgd"),
        ("lenets:turned", 6, "sgd"),
        ("lenets:decay", 3, "sgd"),
    ],
)
def test_parts_of_studies(name, trials, optimizer):
    path, _, argument = name.partition(":")
    plan = make_plan(load_study(f"{CONFIGS}/{path}.py:{argument}"))
    assert len(plan.trials) == plan.trained == trials
    assert {program.static.optimizer for program in plan.programs} == {optimizer}
