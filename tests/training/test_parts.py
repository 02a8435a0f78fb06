"""Training that ends within an epoch, against training whose rate is 0 from that step on."""

import jax
import numpy as np
import pytest

import cnnjax
from cnnjax.analysis.cost import by_configuration, study_cost
from cnnjax.analysis.read import read_run
from cnnjax.study import own_code
from cnnjax.study.plan import make_plan
from cnnjax.training.population import Population
from cnnjax.utils.errors import RequestError
from tests.support.runs import run
from tests.support.studies import make_study
from tests.training.test_population import Bench, assert_close, assert_same

pytestmark = pytest.mark.usefixtures("quick")
STEPS = {0.2: 1, 0.5: 2, 0.75: 3, 0.9: 4, 1.3: 6, 1.75: 7}  # of batches of 60, 60, 60 and 20
OWN = "def until(step):\n    return lambda progress: float(progress < step / 8)\n\n\n"


@pytest.mark.slow
def test_an_epoch_ends_after_its_part(tmp_path):
    """Equal weights, except those that a step changes without a rate: the statistics of batch norm."""
    file = tmp_path / "own.py"
    file.write_text(OWN + "".join(f"until{k} = until({k})\n" for k in STEPS.values()))
    own_code.activate(own_code.find_files({"schedule": f"{file}:until1"}, tmp_path))
    train = {"batch_size": 60, "learning_rate": 0.1}
    bench = Bench(make_study(train={**train, "epochs": tuple(STEPS)}))
    assert [member.epochs for member in bench.members] == [1, 1, 1, 1, 2, 2]
    state, history = bench.train(bench.members, 2)
    assert (state.stage == 1).all() and list(state.epoch) == [1, 1, 1, 1, 2, 2]
    schedules = [f"{file}:until{k}" for k in STEPS.values()]
    whole = Bench(make_study(train={**train, "schedule": tuple(schedules)}))
    expected, _ = whole.train(whole.members, 2)
    assert_close(state.params, expected.params)
    # Means over the images that were trained on: the number of correct ones is whole, and grows with each batch.
    correct = history.train_accuracy[:4, 0] * (60, 120, 180, 200)
    np.testing.assert_allclose(correct, correct.round(), atol=1e-3)
    losses = np.diff(history.train_loss[:4, 0] * (60, 120, 180, 200)) / (60, 60, 20)
    assert (np.diff(correct) >= 0).all() and ((losses > 1) & (losses < 4)).all()


@pytest.mark.slow
def test_a_run_ends_within_an_epoch_and_resumes(tmp_path, monkeypatch):
    train = {"epochs": (1.5, 2, 3), "schedule": ("constant", "linear")}
    states: dict[str, list] = {"whole": [], "resumed": []}
    advance = Population.advance

    def watched(self, state, *arguments):
        state, history = advance(self, state, *arguments)
        states[name].append(jax.tree.map(np.asarray, state))
        if name == "resumed" and len(states[name]) == 1:
            raise KeyboardInterrupt
        return state, history

    monkeypatch.setattr(Population, "advance", watched)
    name = "whole"
    run(make_study(train=train), tmp_path / name)
    name = "resumed"
    with pytest.raises(KeyboardInterrupt):
        run(make_study(train=train), tmp_path / name)
    run(make_study(train=train), tmp_path / name)
    assert len(states["whole"]) == 2 + 3
    assert_same(states["resumed"][-1], states["whole"][-1])
    assert_same(states["resumed"][2], states["whole"][1])
    table = cnnjax.load_results(tmp_path / "resumed")
    assert table["epochs"].tolist() == [1.5, 1.5, 2, 2, 3, 3] and (table["status"] == "ok").all()
    assert table["epochs_run"].tolist() == [2, 2, 2, 2, 3, 3]
    for trial in table["trial"]:
        assert cnnjax.load_trial(tmp_path / "resumed", trial).trial.id == trial
    found = read_run(tmp_path / "resumed")
    assert sorted(by_configuration(found)["images"]) == [300, 300, 400, 400, 600, 600]
    assert study_cost(found).images == 2 * 300 + 600 + 400 + 600  # of the constant rate, two epochs are read off three


def test_only_whole_trials_are_read_off_longer_ones():
    plan = make_plan(make_study(train={"epochs": (0.5, 1, 1.5, 2)}))
    assert [len(program.members) for program in plan.programs] == [2, 1] and len(plan.trials) == 4
    whole = make_plan(make_study(train={"epochs": (1.0, 2.0)}))
    assert [trial.id for trial in whole.trials] == [plan.trials[1].id, plan.trials[3].id]
    assert [trial.row()["epochs"] for trial in plan.trials] == [0.5, 1, 1.5, 2]


@pytest.mark.parametrize("epochs", [0, -1.5, float("nan"), float("inf"), 1e6, "2", True])
def test_what_is_no_number_of_epochs(epochs):
    with pytest.raises(RequestError, match=r"^train\.epochs must be a number > 0 and <= 100000"):
        make_study(train={"epochs": epochs})
