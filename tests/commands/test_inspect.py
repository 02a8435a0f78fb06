"""What is shown of a study before it is trained: statistics recounted by numpy, pictures pixel by pixel, refusals."""

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from absl import flags
from absl.testing import flagsaver
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from cnnjax import inspect
from cnnjax.commands import inspect as inspection
from cnnjax.commands.plan_table import plan_table
from cnnjax.data import load_dataset, normalization_map
from cnnjax.data.normalization import black_share, level_counts, pixel_statistics
from cnnjax.models.ladder import LADDER
from cnnjax.models.specs import Conv, Dense, MaxPool, Relu, Residual
from cnnjax.report import build_report
from cnnjax.report.sections.data import figures as draw_data
from cnnjax.report.sections.data import mosaic
from cnnjax.utils.errors import RequestError
from tests.support.runs import run
from tests.support.studies import make_study

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "configs/quickstart.py")
IMAGES = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, max_side=6))


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The study, its text and the folder of its page."""
    study = make_study(models=("dense", "baseline"), data={"augment": ("flip", "crop")})
    folder = tmp_path_factory.mktemp("shown") / "page"
    return study, inspection.inspect_study(study, folder), folder


@given(IMAGES, st.floats(0.001, 10), st.floats(-10, 10))
def test_pixel_statistics_are_those_of_numpy(images, scale, shift):
    for channel, counts in enumerate(level_counts(images)):
        pixels = images[..., channel] * np.float64(scale) + shift
        found = pixel_statistics(counts, scale, shift)
        expected = (pixels.size, pixels.min(), pixels.mean(), pixels.std(), pixels.max())
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
        assert black_share(counts) == pytest.approx((images[..., channel] <= 10).mean())


def test_more_images_than_are_counted_at_a_time():
    images = np.random.default_rng(0).integers(0, 256, (1100, 2, 3, 2), np.uint8)
    for channel, counts in enumerate(level_counts(images)):
        np.testing.assert_array_equal(counts, np.histogram(images[..., channel], np.arange(257))[0])


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=5, max_dims=5, max_side=4)))
def test_a_mosaic_shows_every_image_in_its_place(images):
    rows, columns, height, width, channels = images.shape
    picture = mosaic(images)
    assert picture.shape == (rows * (height + 1) - 1, columns * (width + 1) - 1, 3)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + 1), column * (width + 1)
            tile = picture[top : top + height, left : left + width]
            if channels >= 3:
                np.testing.assert_array_equal(tile, images[row, column, ..., :3])
            else:
                assert (tile == images[row, column, ..., :1]).all()
    assert (picture[height :: height + 1] == 255).all() and (picture[:, width :: width + 1] == 255).all()


def test_the_tables_say_what_is_in_the_data(shown):
    study, _, folder = shown
    dataset = load_dataset(study.data)
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    classes, pixels = pd.read_csv(folder / "classes.csv"), pd.read_csv(folder / "pixels.csv").set_index("split")
    sizes = pd.read_csv(folder / "splits.csv").set_index("split")
    scale, shift = normalization_map(dataset, "half")
    for name, split in splits.items():
        assert list(classes[name]) == [(split.labels == label).sum() for label in range(10)]
        assert sizes.images[name] == len(split) and sizes["taken from"][name] == "train"
        after = split.images * scale.astype(float) + shift
        assert pixels["mean"][name] == pytest.approx(split.images.mean())
        assert pixels.black[name] == pytest.approx((split.images <= 10).mean())
        assert pixels.std_normalized[name] == pytest.approx(after.std())
        assert (pixels.min_normalized[name], pixels.max_normalized[name]) == pytest.approx((after.min(), after.max()))
    assert sizes.share.sum() == pytest.approx(1)


def test_the_layers_are_the_models_and_their_last_row_is_the_sum(shown):
    _, text, folder = shown
    for name in ("dense", "baseline"):
        layers = pd.read_csv(folder / f"layers_{name}.csv", keep_default_na=False)
        assert len(layers) == len(LADDER[name]) + 1
        for column in ("parameters", "forward flops", "activation bytes", "parameter bytes"):
            assert layers[column].iloc[:-1].sum() == layers[column].iloc[-1]
    # 8x8x1 digits: 3x3 kernels on 1 channel; 4x4x16 inputs of the dense layer; 4 bytes a float
    assert list(layers.parameters) == [9 * 16 + 16, 0, 0, 256 * 10 + 10, 2730]
    assert list(layers["forward flops"]) == [2 * 9 * 16 * 64, 0, 0, 2 * 256 * 10, 23552]
    assert list(layers["activation bytes"]) == [4096, 4096, 1024, 40, 9256]
    assert layers["computed as"][0] == "block_patches"
    assert "Layers of baseline" in text and "2,730" in text


def test_ways_to_convolve_stand_apart(tiny):
    study = make_study(train={"convolution": ("patches", "dense")})
    tables = {table.title: table for table in inspection.model_tables(study, load_dataset(study.data))}
    assert set(tables) == {"Models", "Layers of tiny, convolution patches", "Layers of tiny, convolution dense"}
    for title, table in list(tables.items())[1:]:
        assert table.frame["computed as"][0] == title.split()[-1]
        assert set(table.name) <= set("abcdefghijklmnopqrstuvwxyz_")


def test_layers_that_the_kernels_do_not_fit_are_computed_as_by_auto(monkeypatch):
    monkeypatch.setitem(LADDER, "tiny", (Conv(16), Relu(), Conv(32), Conv(8), Dense()))
    for precision, found in (("float32", ["kernels", "", "kernels"]), ("bfloat16", ["block_patches", "", "shifts"])):
        study = make_study(train={"convolution": "kernels", "precision": precision})
        (_, layers) = inspection.model_tables(study, load_dataset(study.data))
        assert [*layers.frame["computed as"]][:4] == [*found, "shifts"]


def test_layers_are_named_by_their_settings():
    assert inspection.layer_name(Conv(16, 5, "valid")) == "Conv features=16 kernel_size=5 padding=valid"
    assert inspection.layer_name(Dense()) == "Dense"
    assert inspection.layer_name(Conv(8, stride=2)) == "Conv features=8 kernel_size=3 padding=same stride=2"


def test_the_layers_of_a_residual_have_rows(monkeypatch):
    layers = (Residual(Conv(1)), Conv(4, 1), Conv(4, groups=4, stride=2), MaxPool(3, 2), Dense())
    monkeypatch.setitem(LADDER, "nested", layers)
    study = make_study(models=("nested",))
    _, table = inspection.model_tables(study, load_dataset(study.data))
    assert [*table.frame.layer] == [
        *(
            "branch: Conv features=1 kernel_size=3 padding=same",
            "Residual",
            "Conv features=4 kernel_size=1 padding=same",
        ),
        *("Conv features=4 kernel_size=3 padding=same stride=2 groups=4", "MaxPool window=3 stride=2", "Dense", "all"),
    ]
    assert [*table.frame["computed as"]][:4] == ["block_patches", "", "pointwise", "depthwise"]


def test_the_page_stands_alone_and_has_every_figure(shown):
    _, text, folder = shown
    assert text.endswith(f"{folder / 'index.html'}")
    page = (folder / "index.html").read_text()
    names = {
        "samples_train",
        "samples_validation",
        "samples_test",
        "augmented",
        "class_counts",
        "split_sizes",
        "levels",
    }
    assert {file.stem for file in folder.glob("*.svg")} == names == {file.stem for file in folder.glob("*.png")}
    local = set(re.findall(r'(?:href|src)="([^"#:]+)"', page))
    assert local == {file.name for file in folder.iterdir()} - {"index.html"}
    fetched = re.findall(r'(?:src|href|xlink:href)="(?:https?:)?//', page) + re.findall(r"url\(\s*['\"]?https?:", page)
    assert not fetched and "<link" not in page
    for name in names:
        assert Image.open(io.BytesIO((folder / f"{name}.png").read_bytes())).width > 400


def test_augmented_images_are_windows_of_the_padded_ones(tiny):
    """Each is one of the 162 that a flip and an offset make, and flips, rows and columns all occur."""
    study = make_study(data={"augment": ("flip", "crop")})
    dataset = load_dataset(study.data)
    stored, *draws = inspection._augmented(study, dataset)["flip+crop"]
    np.testing.assert_array_equal(stored, dataset.train.images[:10])
    places = []
    for batch in draws:
        for image, original in zip(batch, stored, strict=True):
            padded = [np.pad(flip, ((4, 4), (4, 4), (0, 0))) for flip in (original, original[:, ::-1])]
            windows = np.lib.stride_tricks.sliding_window_view(padded, (8, 8), (1, 2))[..., 0, :, :]
            places.append(np.argwhere((windows == image[..., 0]).all((-1, -2)))[0][[0, 1, 2]])
    flips, rows, columns = np.transpose(places)
    assert set(flips) == {0, 1} and min(len(set(rows)), len(set(columns))) > 4


def test_without_augmentation_or_validation_their_figures_are_left_out(tiny):
    dataset = load_dataset(make_study(select="train_loss", data={"validation": 0}).data)
    names = [plot.name for plot in draw_data(dataset, {})]
    assert names == ["samples_train", "samples_test", "class_counts", "split_sizes", "levels"]


def test_black_pixels_are_left_out_where_they_are_most(tiny):
    dataset = load_dataset(make_study().data)
    dark = dataset.train.images * (np.arange(8) < 3)[:, None].astype(np.uint8)
    captions = {}
    for name, images in (("digits", dataset.train.images), ("dark", dark)):
        object.__setattr__(dataset.train, "images", images)
        captions[name] = draw_data(dataset, {})[-1].caption
    assert "All training pixels" in captions["digits"]
    assert f"{100 * (dark <= 10).mean():.1f} % are at most 10. Shown are the others" in captions["dark"]


@pytest.mark.slow
def test_files_that_are_left_out_are_named_wherever_images_are_counted(tiny, tmp_path):
    for index in range(20):
        (tmp_path / "photos" / str(index % 2)).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / str(index % 2) / f"{index}.png")
    (tmp_path / "photos" / "0" / "more.HEIC").touch()
    data = {"name": "photos", "path": str(tmp_path / "photos"), "train_examples": None, "validation": 4}
    study = make_study(data=data, train={"batch_size": 5, "epochs": 1})
    said = "left out, not read as images: 1 .HEIC"
    assert inspection.inspect_study(study, tmp_path / "page").splitlines()[2] == said
    assert f"<p>{said}</p>" in (tmp_path / "page/index.html").read_text()
    assert said in plan_table(study)
    assert said in run(study, tmp_path / "run")
    assert said in build_report(tmp_path / "run").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": ("tinny",)}, ["models", "tinny", "did you mean 'tiny'"]),
        ({"models": ("lenet_64_128_256",)}, ["models", "8x8", "too small"]),
        ({"data": {"name": "nowhere"}}, ["data.name", "nowhere"]),
    ],
)
def test_what_cannot_be_shown_is_refused(changes, words, tiny, tmp_path):
    with pytest.raises(RequestError) as error:
        inspection.inspect_study(make_study(**changes), tmp_path / "new")
    assert all(word in str(error.value) for word in words), error.value
    assert not (tmp_path / "new").exists()


def test_an_output_that_is_a_file_is_refused(tiny, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match=r"--output.*a folder"):
        inspection.inspect_study(make_study(), tmp_path / "file")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--config"]),
        ([f"--config={QUICKSTART}", "--outptu=x"], ["outptu", "output"]),
        ([f"--config={QUICKSTART}", "--wrokdir=x"], ["wrokdir", "workdir"]),
        ([f"--config={QUICKSTART}", "--config.modls=tiny"], ["modls", "did you mean 'models'?"]),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(arguments, words, tmp_path):
    command = [sys.executable, "-B", "-m", "cnnjax.inspect", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert all(word in done.stderr for word in words), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_the_text_and_takes_its_folder_from_the_config(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(config=f"{QUICKSTART}:smoke", output=None):
        inspect.main(["models=baseline", "data.train_examples=100"])
    assert capsys.readouterr().out.endswith("inspect/quickstart-smoke/index.html\n")
    assert (tmp_path / "inspect/quickstart-smoke/index.html").is_file()
