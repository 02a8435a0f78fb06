"""Runs of older versions, with other names in config.json and trials.csv, can be read."""

import pytest

from cnnjax.runs.trials_csv import read_table
from cnnjax.study.renamed import OLD_KEYS, modern_config
from cnnjax.study.schema import from_config, from_run
from cnnjax.study.trials import list_trials
from cnnjax.utils.errors import RequestError


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"decay": ["l2"]}, {"optimizer": ["adam"]}),
        ({"optimizer": ["adam", "sgd"], "decay": ["decoupled"]}, {"optimizer": ["adamw", "sgdw"]}),
        ({"optimizer": ["adam"], "decay": ["l2", "decoupled"]}, {"optimizer": ["adam", "adamw"]}),
        (
            {"optimizer": ["adam"], "decay": ["decoupled"], "stages": [{"epochs": 2}, {"optimizer": "sgd"}]},
            {"optimizer": ["adamw"], "stages": [{"epochs": 2}, {"optimizer": "sgdw"}]},
        ),
        (
            {"decay": "l2", "stages": [{"decay": "decoupled"}, {"optimizer": "sgd", "decay": "l2"}]},
            {"optimizer": ["adam"], "stages": [{"optimizer": "adamw"}, {"optimizer": "sgd"}]},
        ),
    ],
)
def test_decay_becomes_the_optimizer(old, new):
    assert modern_config({"train": old})["train"] == new
    assert list_trials(from_run({"train": old})) == list_trials(from_config({"train": new}))


@pytest.mark.parametrize("key", [*OLD_KEYS])
def test_an_old_key_is_refused_with_the_new_one(key):
    group, name = key.split(".")
    with pytest.raises(RequestError, match=rf"^{key}='he': use \w+\.\w+"):
        from_config({group: {name: "he"}})


def test_old_keys_of_a_run_mean_the_new_keys():
    old = {"data": {"normalisation": "unit", "split_seed": 3}, "train": {"initialisation": ["he"]}}
    new = {"data": {"normalization": "unit"}, "train": {"initialization": ["he"]}, "streams": {"split": 3}}
    assert from_run(old) == from_config(new)


def test_a_decay_that_no_optimizer_expresses_is_refused():
    old = {"train": {"optimizer": ["adam", "sgd"], "decay": ["l2"], "stages": [{"decay": "decoupled"}]}}
    with pytest.raises(RequestError, match=r"^train.decay=.* use train.optimizer: adamw"):
        from_run(old)


def test_rows_of_an_older_version_have_the_new_names(tmp_path):
    rows = [("adam", "l2"), ("adam+sgd", "decoupled"), ("sgd", "decoupled")]
    cells = (f"t{i},t{i},completed,he,{optimizer},{decay},0.5" for i, (optimizer, decay) in enumerate(rows))
    lines = ["trial,member,status,initialisation,optimizer,decay,f1", *cells]
    (tmp_path / "trials.csv").write_text("\n".join(lines))
    table = read_table(tmp_path)
    assert list(table) == ["trial", "member", "status", "initialization", "optimizer", "test_f1"]
    assert list(table.optimizer) == ["adam", "adamw+sgdw", "sgdw"]


def test_fractions_of_a_version_whose_validation_was_0_by_default():
    study = from_run({"select": "val_loss", "data": {"validation": 0.0, "fractions": [0.6, 0.2, 0.2]}})
    assert study.data.has_validation
