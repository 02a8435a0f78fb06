"""Numbers that go wrong, and data at the edge of sense: a sensible result, or one line that names file and record."""

import functools
import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import cnnjax
from cnnjax.commands import run as runner
from cnnjax.data.load import load_dataset
from cnnjax.data.readers.unlabeled import read_unlabeled
from cnnjax.models.ladder import LADDER
from cnnjax.models.specs import Dense, Relu
from cnnjax.runs.integrity import read_lines
from cnnjax.study.schema import DataConfig
from cnnjax.training.population import Population
from cnnjax.utils.errors import RequestError
from cnnjax.utils.progress import Progress
from tests.support.studies import make_study

compile_once = functools.cache(Population)


@pytest.fixture(autouse=True)
def quick(tiny, monkeypatch):
    """Beside the tiny network one without convolutions, which is compiled sooner."""
    monkeypatch.setitem(LADDER, "plain", (Dense(8), Relu(), Dense()))
    monkeypatch.setattr("cnnjax.training.compiler.Population", compile_once)


def run(workdir, **changes):
    with Progress(Console(file=io.StringIO())) as progress:
        runner.run(make_study(**changes), workdir, progress=progress)
    return cnnjax.load_results(workdir)


def write_npz(path, images, labels):
    np.savez(path, images=np.asarray(images, np.uint8), labels=np.asarray(labels))
    return {"path": str(path), "train_examples": None, "validation": 10, "test": 0.2}


# Training


@pytest.mark.slow
def test_rates_that_explode_diverge_and_disturb_nobody(tmp_path):
    rates = (0.05, 1e5, 1e20, 3e38)
    results = run(tmp_path, train={"learning_rate": rates}).set_index("learning_rate")
    assert results.status[0.05] == "ok" and np.isfinite(results.val_loss[0.05])
    for rate in rates[1:]:
        row = results.loc[rate]
        # Whatever ended well has every number; what did not has none.
        measures = row[["train_loss", "test_loss", "test_accuracy", "test_f1"]].astype(float)
        assert np.isfinite(measures).all() if row.status == "ok" else measures.isna().all()
        logits = tmp_path / f"predictions/{row.trial}.npz"
        assert logits.exists() == (row.status == "ok")
    assert (results.status == "diverged").any()


@pytest.mark.slow
def test_constant_images_train_to_the_shares_of_the_classes(tmp_path):
    """With nothing to see, the best loss is the entropy of the classes: ln 2 for two of equal size."""
    data = write_npz(tmp_path / "gray.npz", np.full((100, 8, 8), 7), np.arange(100) % 2)
    train = {"epochs": 5, "batch_size": 10, "learning_rate": 0.01}
    results = run(tmp_path / "run", models=("plain",), data={**data, "normalization": "standard"}, train=train)
    assert results.status[0] == "ok"
    assert results.test_loss[0] == pytest.approx(np.log(2), abs=0.1)


@pytest.mark.slow
def test_one_class_is_learned_without_a_loss(tmp_path):
    results = run(tmp_path, models=("plain",), data={"classes": (3,), "train_examples": 50, "validation": 20})
    assert (results.test_accuracy[0], results.test_f1[0]) == (1, 1)
    assert results.test_loss[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_a_batch_of_one_with_batch_norm(tmp_path):
    """A channel of one image still has its pixels; here the last batch is one."""
    results = run(tmp_path, data={"train_examples": 21}, train={"batch_size": 20, "learning_rate": 1e-3})
    assert results.status[0] == "ok" and np.isfinite(results.test_loss[0])
    lines = read_lines(tmp_path / "metrics.jsonl").intact
    assert lines[1]["train_loss"] != lines[0]["train_loss"]


def test_images_of_one_pixel_are_too_small_for_a_network(tmp_path):
    data = write_npz(tmp_path / "dots.npz", np.arange(100).reshape(100, 1, 1), np.arange(100) % 2)
    with pytest.raises(RequestError, match=r"models='tiny'.*1x1.*too small"):
        run(tmp_path / "run", data=data)
    assert load_dataset(DataConfig(**{**data, "image_size": 8, "train_examples": (None,)})).image_shape == (8, 8, 1)


# Data


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1, -1, 0], "labels of labels range over -1..1"),
        ([0, 1, 2**40, 0], "labels of labels range over 0..1099511627776"),
        ([0, 1, 99, 0], "labels reach 99, so there are 100 classes, but 4 training examples"),
        ([0.0, 1.0, np.nan, 0.0], "labels is float64"),
    ],
)
def test_labels_out_of_range_are_refused(labels, words, tmp_path):
    data = write_npz(tmp_path / "x.npz", np.zeros((4, 8, 8)), labels)
    with pytest.raises(RequestError, match=words) as refused:
        load_dataset(DataConfig(**data))
    assert "x.npz" in str(refused.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5])
def test_pixels_that_are_no_bytes_are_refused(value, tmp_path):
    np.savez(tmp_path / "x.npz", images=np.full((4, 8, 8), value), labels=np.arange(4))
    with pytest.raises(RequestError, match=r"x\.npz.*images is float64"):
        load_dataset(DataConfig(validation=0, path=str(tmp_path / "x.npz")))


@pytest.mark.parametrize("cell", ["nan", "", "256", "-1", "1.5", "1e2", "x"])
def test_a_cell_of_a_csv_that_is_no_byte_is_named(cell, tmp_path):
    (tmp_path / "x.csv").write_text(f"label,pix1,pix2,pix3,pix4\n0,1,2,3,4\n1,1,2,{cell},4\n")
    with pytest.raises(RequestError, match=r"x\.csv.*row 3 .*column pix3"):
        load_dataset(DataConfig(validation=0, path=str(tmp_path / "x.csv")))


def save(folder, name, image):
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / name)


def test_pictures_of_every_mode_are_what_they_show(tmp_path):
    """One picture as gray, 16 bits, on white, palette and one bit: the same pixels, as far as the mode has them."""
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    gray = Image.fromarray(ramp)
    colors = Image.fromarray(np.stack([ramp, ramp, 255 - ramp], -1))
    transparent = colors.convert("RGBA")
    transparent.putalpha(Image.fromarray(255 - ramp))
    palette = colors.quantize(64)
    modes = {
        **{"1 gray": gray, "2 sixteen": Image.fromarray(ramp.astype(np.uint16) * 257), "3 colors": colors},
        **{"4 transparent": transparent, "5 palette": palette, "6 bit": Image.fromarray(ramp > 127)},
    }
    for name, image in modes.items():
        save(tmp_path, f"{name}.png", image)
    read = read_unlabeled(str(tmp_path))
    assert read.ids == [f"{name}.png" for name in modes]
    alpha = (255 - ramp[..., None]) / 255
    on_white = np.rint(alpha * np.asarray(colors) + (1 - alpha) * 255)
    expected = [ramp[..., None], ramp[..., None], np.asarray(colors), on_white]
    expected += [np.asarray(palette.convert("RGB")), np.where(ramp > 127, 255, 0)[..., None]]
    for found, want in zip(read.images, expected, strict=True):
        np.testing.assert_array_equal(found, want)


def test_pictures_of_mixed_sizes_are_refused_by_name_or_resized(tmp_path):
    for index, size in enumerate((8, 8, 9, 8)):
        save(tmp_path / "data" / "ab"[index % 2], f"{index}.png", Image.new("L", (size, size), index))
    with pytest.raises(RequestError, match=r"data\.image_size.*a/0\.png is 8x8.*a/2\.png 9x9"):
        load_dataset(DataConfig(validation=0, path=str(tmp_path / "data")))
    data = load_dataset(DataConfig(validation=0, path=str(tmp_path / "data"), image_size=9, test=0.5))
    assert data.image_shape == (9, 9, 1)


@pytest.mark.slow
def test_a_picture_that_would_fill_the_memory_is_refused_by_its_header(tmp_path):
    bomb = io.BytesIO()
    Image.new("1", (30000, 30000)).save(bomb, "png")
    (tmp_path / "bomb.png").write_bytes(bomb.getvalue())
    with pytest.raises(RequestError, match=r"bomb\.png.*exceeds limit"):
        read_unlabeled(str(tmp_path))
