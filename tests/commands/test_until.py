"""Seeds are added to the configurations that may still be the best, until one is decided."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from cnnjax.analysis.evidence import weigh
from cnnjax.analysis.looks import count_looks
from cnnjax.analysis.read import read_run
from cnnjax.commands import growth, until
from cnnjax.training.population import Population
from cnnjax.utils.errors import RequestError
from cnnjax.utils.progress import Progress
from tests.support.made_up_run import GRID, make_run, read_answer
from tests.support.runs import assert_equal_numbers, run
from tests.support.studies import make_study

pytestmark = pytest.mark.usefixtures("quick", "rough")

RATES = {"seeds": (0, 1, 2), "train": {"learning_rate": (0.05, 0.055, 1e-4), "epochs": 3}}


def run_until(study, workdir, **options):
    with Progress(is_shown=False) as progress:
        return until.run_until_decided(study, workdir, progress=progress, **options)


def seeds_by_rate(workdir):
    return pd.read_csv(workdir / "trials.csv").groupby("learning_rate")["seed"].apply(list).to_dict()


def looks_of(workdir):
    looks = json.loads((workdir / "config.json").read_text())["looks"]
    return [{key: value for key, value in look.items() if key != "at"} for look in looks]


@pytest.mark.slow
def test_only_what_is_in_question_gets_seeds_and_a_killed_study_goes_on(tmp_path, monkeypatch):
    study = make_study(**RATES)
    said = run_until(study, tmp_path / "whole", max_seeds=6)
    seeds = seeds_by_rate(tmp_path / "whole")
    assert len(seeds[1e-4]) < len(seeds[0.05]) == len(seeds[0.055]) <= 6
    looks, run_of = looks_of(tmp_path / "whole"), read_run(tmp_path / "whole")
    assert sum(look["share"] for look in looks) <= 1 + 1e-9
    assert count_looks(run_of).share == looks[-1]["share"] and f"look {len(looks)}" in said
    assert len(weigh(run_of).ranks) == 3 and f"look {len(looks)} at the study" in read_answer(tmp_path / "whole")
    assert run_until(study, tmp_path / "whole", max_seeds=6) == said and looks_of(tmp_path / "whole") == looks

    advance, calls = Population.advance, []

    def stop_in_fifth(self, *arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return advance(self, *arguments)

    monkeypatch.setattr(Population, "advance", stop_in_fifth)
    for _ in range(2):
        try:
            run_until(study, tmp_path / "killed", max_seeds=6)
        except KeyboardInterrupt:
            assert len(calls) == 5
    assert looks_of(tmp_path / "killed") == looks
    assert_equal_numbers(tmp_path / "killed", tmp_path / "whole")

    run(make_study(**RATES | {"seeds": (0, 1, 2, 3, 4, 5, 6)}), tmp_path / "whole")  # by hand: that is a look, too
    assert {len(of) for of in seeds_by_rate(tmp_path / "whole").values()} == {7}
    assert count_looks(read_run(tmp_path / "whole")).seeds[-1] == 7
    assert 0 < count_looks(read_run(tmp_path / "whole")).share <= 0.5


@pytest.mark.slow
def test_growing_by_hand_counts_as_a_look_and_the_only_look_has_the_whole_risk(tmp_path):
    run(make_study(**RATES), tmp_path)
    assert count_looks(read_run(tmp_path)).shares == [1.0] and "look" not in read_answer(tmp_path)
    run(make_study(**RATES | {"train": {"learning_rate": (0.05, 0.055, 1e-4, 0.04), "epochs": 3}}), tmp_path)
    assert count_looks(read_run(tmp_path)).shares == [1.0]  # another configuration, but no new seed of the others
    for count, shares in ((4, [1.0, 0.5]), (5, [1.0, 0.5, 0.25])):
        run(make_study(**RATES | {"seeds": tuple(range(count))}), tmp_path)
        assert count_looks(read_run(tmp_path)).shares == shares
    ranks = weigh(read_run(tmp_path)).ranks
    assert {one.against.share for one in ranks[1:]} == {0.25}
    assert "look 3 at the study (3, 4 and 5 seeds" in read_answer(tmp_path)
    run_until(make_study(**RATES | {"seeds": (0, 1, 2, 3, 4)}), tmp_path, max_seeds=5)
    shares = count_looks(read_run(tmp_path)).shares
    np.testing.assert_allclose(shares, [1.0, 0.5, 0.5])  # all that was left


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({}, {"most": 2}, r"--max_seeds must be >= 3, the present number"),
        ({}, {"margin": 0.0}, r"--margin must be > 0"),
        ({}, {"margin": -1.0}, r"--margin must be > 0"),
        ({"seeds": (0,)}, {}, r"--until needs at least 2 seeds"),
        ({"train": {"learning_rate": 0.1}}, {}, "the study has one configuration"),
        ({"streams": {"init": (0, 1)}}, {}, "--until needs one value of each stream"),
        ({"data": {"folds": 3, "validation": None}}, {}, "folds share images"),
    ],
)
def test_a_request_that_seeds_cannot_decide_is_refused(changes, options, words):
    study = make_study(**{"seeds": (0, 1, 2), "train": {"learning_rate": (0.1, 0.2)}} | changes)
    with pytest.raises(RequestError, match=words):
        until.check_until(study, **{"most": 20, "margin": None} | options)


def test_finished_seeds_are_counted_by_configuration():
    from cnnjax.study.trials import list_trials

    trials = list_trials(make_study(seeds=(0, 1, 2), train={"learning_rate": (0.1, 0.2)}))
    finished = [trials[1].id, trials[2].id, trials[3].id]
    assert growth.count_seeds(trials, finished) == {trials[1].id: 2, trials[3].id: 1}


def test_a_look_that_an_older_run_gave_no_share_has_one(tmp_path):
    """They gave a look nothing once the whole risk was spent. No verdict can be tested at a risk of nothing."""
    run = read_run(make_run(tmp_path / "run", GRID))
    seeds = {str(trial): 5 for trial in run.trials.groupby("configuration")["trial"].first()}
    looks = [{"seeds": seeds, "share": share} for share in (1.0, 0.0)]
    run = dataclasses.replace(run, config=run.config | {"looks": looks})
    assert count_looks(run).shares == [1.0, 0.5] and weigh(run).ranks[0].certainty <= 1
