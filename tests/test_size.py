"""Studies of many trials: records as training writes them, pages that stay small, and their price."""

import re

import pandas as pd
import pytest
from absl import flags
from absl.testing import flagsaver
from made_up_run import make_config, make_run

from cnnjax.report import build_report, tables
from cnnjax.report.parts import table as show
from cnnjax.report.tables import Table
from experiments.benchmarks import price, size


def test_every_stage_of_a_study_that_is_not_trained(tmp_path):
    flags.FLAGS.mark_as_parsed()
    study = size.make_study(96, wide=False)
    with flagsaver.flagsaver(examples=20):
        found = {name: size.STAGES[name][0](study, tmp_path / "run") for name in ("plan", "records", "resume")}
    # of each program's four members: a chunk of baselines, one of mediums, four of complexes
    assert found == {"plan": 96, "records": 4 * (1 + 1 + 4), "resume": 96}
    assert size.statistics(study, tmp_path / "run") == 48
    trials = pd.read_csv(tmp_path / "run/trials.csv")
    assert trials.groupby("model")["test_accuracy"].mean().idxmax() == "complex"
    assert len(size.make_study(10_000, wide=True).seeds) == 5


def test_a_long_table_is_cut_on_the_page_and_whole_beside_it():
    frame = pd.DataFrame({"n": range(400)})
    shown = show(Table("long", "Long", "", frame, foot=2))
    assert re.findall(r'data-value="(\d+)\.0"', shown)[-3:] == [str(tables.MOST_ROWS - 1), "398", "399"]
    assert f"400 rows, of which the first {tables.MOST_ROWS} are shown" in shown
    assert len(Table("long", "Long", "", frame).csv().splitlines()) == 401
    assert "shown" not in show(Table("short", "Short", "", frame[: tables.MOST_ROWS]))


def test_curves_of_many_settings_show_the_best(tmp_path):
    rates = [0.001 * k for k in range(1, 121)]
    folder = make_run(tmp_path / "run", make_config([0], train={"learning_rate": rates, "epochs": 1}), examples=10)
    assert "one line per setting (100 best of 120)" in build_report(folder).read_text()


@pytest.mark.parametrize("speeds", [[], ["baseline=1000000", "medium=100000", "complex=10000"]])
def test_a_price_is_of_what_was_measured(capsys, speeds):
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(images_per_second=speeds):
        price.main([""])
    said = capsys.readouterr().out
    assert ("none was measured" in said) == (not speeds)
    assert [line.split()[0] for line in said.splitlines() if " GPUs  " in line] == (["1", "8", "64"] if speeds else [])
