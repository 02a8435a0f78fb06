"""What a reader sees: texts that cannot be misread, axes that end where a measure does, a color a configuration."""

import html
import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from cnnjax import stats
from cnnjax.analysis.compare.fresh import Against, Confirmation, Contender
from cnnjax.analysis.read import read_run
from cnnjax.data.load import load_source
from cnnjax.report import build_report, theme
from cnnjax.report.sections import confirmation, ranking
from cnnjax.study.schema import DataConfig
from tests.support.made_up_run import GRID, make_config, make_run

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def drawn(monkeypatch):
    """The figures that a report draws, with their axes."""
    figures = []
    inner = theme.assign_fonts
    monkeypatch.setattr(theme, "assign_fonts", lambda figure: figures.append(figure) or inner(figure))
    return figures


def good_run(folder, seeds=3, **train):
    """A run whose accuracies are near 100 %."""
    train = {"learning_rate": [0.01, 0.03], "epochs": 4} | train
    config = make_config(list(range(seeds)), train=train, select="val_accuracy", data={"validation": 0.1})
    run = make_run(folder / "run", config)
    trials, rng = pd.read_csv(run / "trials.csv"), np.random.default_rng(0)
    names = ["train_accuracy", "val_accuracy", "test_accuracy", "test_precision", "test_recall", "test_f1"]
    trials[names] = 1 - rng.choice([0, 0.01, 0.2, 0.6], (len(trials), len(names)), p=[0.4, 0.4, 0.1, 0.1])
    trials.to_csv(run / "trials.csv", index=False)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line |= {"train_accuracy": rng.uniform(0.9, 1), "val_accuracy": rng.uniform(0.9, 1)}
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "train", [{}, {"learning_rate": [0.01, 0.02, 0.03], "batch_size": [32, 64], "optimizer": ["adam", "sgd"]}]
)
def test_no_axis_of_a_percentage_goes_beyond_0_and_100(tmp_path, drawn, train):
    build_report(good_run(tmp_path, **train))
    seen = 0
    for figure in drawn:
        for axes in figure.axes:
            for along, title in (("x", axes.get_xlabel()), ("y", axes.get_ylabel()), ("y", axes.get_title("left"))):
                if "%" in title:
                    low, high = getattr(axes, f"get_{along}lim")()
                    ticks = getattr(axes, f"get_{along}ticks")()
                    assert 0 <= low < high <= 100, title
                    assert all(0 <= tick <= 100 for tick in ticks if low <= tick <= high)
                    seen += 1
    assert seen > 8


@pytest.mark.slow
@pytest.mark.parametrize("rates", [[0.01, 0.03], np.geomspace(0.001, 0.1, 12).tolist()])
def test_no_text_of_a_figure_is_a_formula(tmp_path, drawn, rates):
    """Ticks of logarithmic axes are, by default."""
    build_report(good_run(tmp_path, learning_rate=rates))
    texts = [text.get_text() for figure in drawn for text in figure.findobj(Text)]
    assert len(texts) > 100 and not [text for text in texts if "$" in text]


@pytest.mark.slow
def test_a_share_of_seeds_is_not_read_as_part_of_a_class(tmp_path):
    """The class 7 that no seed has right was "7 0 %"."""
    run = make_run(tmp_path / "run", make_config([0, 1, 2]))
    data = json.loads((run / "data.json").read_text()) | {"classes": [*"0123456789"]}
    (run / "data.json").write_text(json.dumps(data))
    build_report(run)
    texts = [
        "".join(node.itertext())
        for path in (run / "report").glob("examples_*.svg")
        for node in ElementTree.fromstring(path.read_text()).iter(f"{SVG}text")
    ]
    assert any(re.fullmatch(r"\d+ % right", text) for text in texts)
    assert not any(re.search(r"\d \d+ %", text) for text in texts)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 14])
def test_the_histogram_of_few_seeds_counts_them(tmp_path, drawn, seeds):
    build_report(make_run(tmp_path / "run", make_config(list(range(seeds)))))
    (axes,) = (a for figure in drawn for a in figure.axes if "that are right" in a.get_xlabel())
    ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= seeds]
    assert all(tick == int(tick) for tick in ticks) and (seeds > 12 or len(ticks) == seeds + 1)
    assert len({bar.get_x() for bar in axes.patches}) == seeds + 1
    assert len(axes.texts) == (seeds + 1 if seeds <= 12 else 2)


def colors_of(figure):
    """The color of each name in a figure's legends."""
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    pairs = [
        (text.get_text().strip(), handle)
        for legend in legends
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    ]
    return {name: handle.get_color() for name, handle in pairs if hasattr(handle, "get_color")}


@pytest.mark.slow
@pytest.mark.parametrize("models", [["baseline"], ["baseline", "medium", "complex"]])
def test_a_configuration_has_one_color_in_all_figures(tmp_path, drawn, models):
    config = make_config([0, 1, 2], models=models, select="val_accuracy", data={"validation": 0.1})
    config["train"] |= {"learning_rate": [0.03, 0.01] if len(models) > 1 else [0.03, 0.01, 0.1, 0.02]}
    config["train"] |= {"epochs": [2, 4]} if len(models) > 1 else {}
    run = make_run(tmp_path / "run", config)
    build_report(run)
    found = {}
    for figure in drawn:
        for name, color in colors_of(figure).items():
            rate, model = re.search(r"learning rate ([\d.]+\d)", name), name.split(",")[0].split(":")[0]
            if len(models) == 1 and rate:
                found.setdefault(rate[1], []).append(color)
            elif name.endswith(", test"):
                continue  # a line to hold bars against
            elif len(models) > 1 and (name in models or (rate is None and model in models)):
                found.setdefault(model, []).append(color)
    assert len(found) == max(len(models), 4 if len(models) == 1 else 0)
    assert all(len(colors) > 1 and len(set(colors)) == 1 for colors in found.values()), found
    assert len({colors[0] for colors in found.values()}) == len(found)


def test_the_verdict_stands_in_front(tmp_path):
    """Thirteen columns are wider than a page."""
    run = read_run(make_run(tmp_path / "run", GRID, examples=40))
    columns = list(ranking.tables(run)[1].frame.columns)
    assert columns[:4] == ["place", "instead of", "the winner is", "more_seeds"]
    summary = stats.summarize([0.6, 0.7, 0.8])
    contender = Contender("t0000", "a", 0.7, summary, summary)
    against = Against("t0001", "undecided", 0.2, 0.01, -0.02, 0.04, (7, 6))
    found = Confirmation(5, "test_accuracy", "test_accuracy", [contender] * 2, [against])
    frame = confirmation.contender_table(found).frame
    assert list(frame.columns[:4]) == ["place", "configuration", "the winner is", "more_seeds"]
    assert frame["more_seeds"].tolist()[1] == 7 and "the winner is" not in (
        confirmation.contender_table(found._replace(contenders=[contender], against=[])).frame
    )


@pytest.mark.slow
def test_a_phone_shows_the_first_figure_whole(tmp_path):
    """One that is wider than a phone is scrolled, and shows the names and the low values."""
    page = build_report(good_run(tmp_path)).read_text()
    assert re.search(r'<figure class="(\w+)">', page)[1] == "half"
    svg = ElementTree.fromstring((tmp_path / "run/report/ranking.svg").read_text())
    assert float(svg.get("viewBox").split()[2]) <= 6 * 72


def test_what_ran_names_the_data_that_it_was(tmp_path):
    path = tmp_path / "mnist" / "train.csv"
    path.parent.mkdir()
    path.write_text("label,pix1,pix2,pix3,pix4\n" + "".join(f"{i % 2},0,{i},9,7\n" for i in range(20)))
    assert load_source(DataConfig(validation=0, path=str(path)))[0] == "mnist"
    assert load_source(DataConfig(validation=0, path=str(path), name="mine"))[0] == "mine"
    path.rename(path.with_name("digits_9.csv"))
    assert load_source(DataConfig(validation=0, path=str(path.with_name("digits_9.csv"))))[0] == "digits_9"
    run = make_run(tmp_path / "run", make_config([0, 1], data={"path": str(path)}))
    data = json.loads((run / "data.json").read_text()) | {"name": "mnist"}
    (run / "data.json").write_text(json.dumps(data))
    page = html.unescape(build_report(run).read_text())
    assert "<dt>config: data.name</dt><dd>mnist</dd>" in page and "Study of mnist" in page
