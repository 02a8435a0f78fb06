"""Names of any letters: what matplotlib, HTML, CSV, Markdown or a file's name would interpret stands as it is."""

import csv
import html
import json
import re
import unicodedata
import warnings
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from cnnjax.data import Dataset, Split
from cnnjax.models.ladder import LADDER
from cnnjax.report import build_report, labels, summarize_run
from cnnjax.report.labels import assign_fonts, legend_label, shortened
from cnnjax.report.sections import data, predictions
from cnnjax.report.theme import canvas, context, file_name, line_handle, render
from tests.support.made_up_run import make_config, make_run

NAMES = [
    "$x$",
    "5 $ to 9 $",
    "_hidden",
    "<b>bold</b> & \"so\" 'on'",
    "a,b;c\td\ne",
    "猫",
    "🦊 fox",
    "long " * 24,
    "cafe\u0301 \\frac{1}{2} %d {0} #0072b2",
    "=1+1|`*~",
]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def complaints():
    """Warnings of any kind, which no drawing may give."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found


def texts_of(svg):
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def nasty_run(folder, models=("baseline",)):
    config = make_config([0, 1], train={"learning_rate": [0.01, 0.03]}, models=list(models))
    run = make_run(folder / "run", config)
    data = json.loads((run / "data.json").read_text()) | {"classes": NAMES, "name": NAMES[3]}
    (run / "data.json").write_text(json.dumps(data))
    return run


@pytest.mark.slow
def test_a_page_of_names_that_are_anything(tmp_path, complaints, monkeypatch):
    models = ["模型", "网络", "a/b $x$", "_" * 3, "m" * 150, "#0072b2"]
    for name in models:
        monkeypatch.setitem(LADDER, name, LADDER["baseline"])
    run = nasty_run(tmp_path, models)
    page = build_report(run).read_text()
    assert [str(one.message) for one in complaints] == []
    files = {path.name for path in (run / "report").iterdir()}
    assert sum(name.startswith("confusion_") and name.endswith(".svg") for name in files) == len(models)
    assert max(map(len, files)) < 100 and all(re.fullmatch(r"[\w.]+", name, re.ASCII) for name in files)
    assert "<b>bold</b>" not in page and html.escape("<b>bold</b>") in page
    assert html.escape(NAMES[1]) in page and NAMES[5] in page and "\\mathdefault" not in page
    report = next((run / "report").glob("classes_*.csv"))
    with report.open(newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)][: len(NAMES)] == NAMES
    said = summarize_run(run)
    assert "m" * 150 in said and "a/b \\$x\\$" in said and "a/b $x$" not in said


@pytest.mark.slow
def test_figures_show_names_as_they_are(tmp_path, complaints):
    build_report(nasty_run(tmp_path))
    shown = texts_of((tmp_path / "run/report/roc_baseline.svg").read_text())
    assert any(text.startswith("$x$: 0.") for text in shown) and any("5 $ to 9 $" in text for text in shown)
    assert any(text.strip().startswith("_hidden: ") for text in shown)
    assert any(text.startswith("a,b;c d e: ") for text in shown)
    assert any("long long lon…" in text for text in shown) and not any("long " * 10 in text for text in shown)
    page = (tmp_path / "run/report/index.html").read_text()
    assert "#0072b2" in "".join(re.findall(">([^<]*)<", page))  # a text, and no color
    assert complaints == []


def test_data_and_predictions_of_such_names_are_drawn(complaints):
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (20, 5, 5, 1)).astype(np.uint8), np.arange(20, dtype=np.int32) % 10)
    dataset = Dataset("made up", split, None, split, tuple(NAMES))
    plots = [*data.figures(dataset, {}), *predictions.figures(split.images, split.labels, NAMES)]
    assert complaints == []
    assert sum("$x$" in texts_of(plot.svg) for plot in plots) == 5


def draw(label, fonts=None, monkeypatch=None):
    if monkeypatch:
        monkeypatch.setattr(labels, "_system_fonts", lambda: fonts)
        labels._fonts.cache_clear()
    with context():
        figure, [[axes]] = canvas(4, 3)
        axes.set_yticks([0, 1], [label, "other"])
        axes.legend(handles=[line_handle(label)])
        axes.set_title(label)
        plot = render(figure, "x", "", "")
    labels._fonts.cache_clear()
    return texts_of(plot.svg), plot


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("猫", "U+732B"),
        ("🦊", ":fox face:"),
        ("ＡＢ", "AB"),
        ("cafe\u0301", "café"),
        ("a\x00b", "a b"),
    ],
)
def test_letters_that_no_font_has_are_spelled(name, shown, monkeypatch, complaints):
    texts, _ = draw(name, [], monkeypatch)
    assert [text.strip() for text in texts].count(shown) == 3
    assert complaints == []


def test_a_font_of_the_system_that_has_the_letters_is_taken(monkeypatch, complaints):
    from matplotlib import font_manager

    path = font_manager.findfont("STIXGeneral")
    extra = min(set(labels._letters_of(path)) - labels._letters_of(labels._path("DejaVu Sans")), key=ord)
    texts, plot = draw(f"a{extra}b", [("Broken", __file__), ("STIXGeneral", path)], monkeypatch)
    assert texts.count(f"a{extra}b") == 3 and "STIXGeneral" in plot.svg
    other = draw(f"a{extra}b", [], monkeypatch)[1]
    assert plot.png != other.png and complaints == []


def test_composed_and_decomposed_names_are_drawn_alike():
    names = [unicodedata.normalize(form, "Übung é") for form in ("NFC", "NFD")]
    assert draw(names[0])[1].png == draw(names[1])[1].png


def test_files_of_different_names_differ():
    names = ["a_b", "a b", "a-b", "模型", "网络", "__", "m" * 150, "m" * 151, "a/b"]
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(names) and files[0] == "a_b" and max(map(len, files)) < 80


def test_names_are_shortened_and_kept_in_legends():
    assert (shortened("a\n b", 9), shortened("abcdef", 4), legend_label("_x")) == ("a b", "abc…", " _x")


def test_tick_labels_are_replaced_also_where_they_are_made_anew():
    with context():
        figure, [[axes]] = canvas(4, 3)
        axes.set_xticks([0], ["a\x00b" + "c" * 200])
        assign_fonts(figure)
        figure.draw_without_rendering()
        (label,) = axes.get_xticklabels()
        assert label.get_text().startswith("a bc") and len(label.get_text()) == 48
