"""Networks taken out of a run against what the run itself wrote down, and unlabeled images against both."""

import io
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.special
from PIL import Image
from rich.console import Console
from sklearn.metrics import confusion_matrix

import cnnjax
from cnnjax import predict
from cnnjax.analysis.read import read_run
from cnnjax.commands import predict as prediction
from cnnjax.commands import run as runner
from cnnjax.data import Dataset, load_dataset
from cnnjax.data.readers.unlabeled import Unlabeled
from cnnjax.report.sections import predictions
from cnnjax.runs.run_dir import RunFolder
from cnnjax.training.evaluate import EVALUATION_BATCH
from cnnjax.utils.errors import RequestError
from cnnjax.utils.progress import Progress
from tests.support.runs import batch_sizes, trial_ids
from tests.support.studies import add_tiny, logits_of, make_study

# Two configurations of two seeds and two lengths, trained as one chunk of four members.
GRID = {"learning_rate": (0.05, 0.1), "epochs": (1, 3)}
STUDY = {"seeds": (0, 1), "train": GRID, "checkpoint": {"keep": 1}, "data": {"normalization": "standard"}}


def train(workdir, **changes):
    """Runs a study; returns its data."""
    study = make_study(**changes)
    with pytest.MonkeyPatch.context() as patch, Progress(Console(file=io.StringIO())) as progress:
        add_tiny(patch)
        runner.run(study, workdir, progress=progress)
    return load_dataset(study.data)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run's folder and its data."""
    workdir = tmp_path_factory.mktemp("run")
    return workdir, train(workdir, **STUDY)


@pytest.fixture(autouse=True)
def on_the_ladder(tiny):
    """The tiny model is there to be built again."""


def stored_logits(workdir, trial):
    return np.load(workdir / f"predictions/{trial}.npz")["logits"]


def assert_stored(workdir, trial, logits):
    """Logits are those that a run wrote down, to float16's resolution beside float32's rounding."""
    stored = stored_logits(workdir, trial)
    assert (logits.argmax(1) == stored.argmax(1)).all()
    shifted = logits - logits.max(1, keepdims=True)
    np.testing.assert_allclose(shifted, stored.astype(np.float32), rtol=2**-11, atol=1e-5)


def save(folder, images, name="new.npy"):
    np.save(folder / name, images)
    return str(folder / name)


# A trial's network


@pytest.mark.slow
def test_every_trial_predicts_what_its_run_wrote_down(trained):
    workdir, dataset = trained
    results = cnnjax.load_results(workdir)
    assert len(results) == 8 and set(results.epochs_run) == {1, 3}
    assert batch_sizes(workdir) == [(4, 4)]
    assert len(dataset.test) > EVALUATION_BATCH and len(dataset.test) % EVALUATION_BATCH
    for row in results.itertuples():
        taken = cnnjax.load_trial(str(workdir), row.trial)
        assert (taken.trial.id, taken.trial.seed, taken.trial.epochs) == (row.trial, row.seed, row.epochs)
        logits = taken.logits(dataset.test.images)
        assert logits.dtype == np.float32
        assert_stored(workdir, row.trial, logits)
        assert (logits.argmax(1) == dataset.test.labels).mean() == pytest.approx(row.test_accuracy, abs=1e-6)


@pytest.mark.slow
def test_a_trial_that_may_stop_early_predicts_with_its_best_weights(tmp_path):
    """The shorter trial ends before patience does, the longer one by it."""
    rule = {"optimizer": "adam", "learning_rate": 0.1, "epochs": (3, 12), "early_stopping": "val_loss:2"}
    dataset = train(tmp_path, seeds=(0, 1, 2), train=rule)
    results = cnnjax.load_results(tmp_path)
    assert (results.best_epoch < results.epochs_run).any()
    for trial in results.trial:
        assert_stored(tmp_path, trial, cnnjax.load_trial(tmp_path, trial).logits(dataset.test.images))


@pytest.mark.slow
def test_logits_are_means_over_the_views_that_the_study_or_the_caller_names(trained, tmp_path):
    dataset = train(tmp_path, data={"test_time_augment": "flip+shift"})
    (trial,) = trial_ids(tmp_path)
    taken, images = cnnjax.load_trial(tmp_path, trial), dataset.test.images
    assert_stored(tmp_path, trial, taken.logits(images))
    plain = taken.logits(images, "none")
    both = (plain + taken.logits(images[:, :, ::-1], "none")) / 2
    np.testing.assert_allclose(taken.logits(images, "flip"), both, rtol=1e-4, atol=1e-4)
    assert np.abs(both - plain).max() > 0.1
    workdir, trial = trained[0], trial_ids(trained[0])[7]
    output, flipped = tmp_path / "labels.csv", save(tmp_path, images[:, :, ::-1])
    found = [
        prediction.predict_file(workdir, source, output, trial, augment="flip") and pd.read_csv(output)
        for source in (save(tmp_path, images, "plain.npy"), flipped)
    ]
    np.testing.assert_allclose(*(frame.iloc[:, 3:].to_numpy(float) for frame in found), atol=1e-4)


@pytest.mark.slow
def test_a_network_is_whole_and_alone(trained):
    workdir, dataset = trained
    taken = cnnjax.load_trial(workdir, trial_ids(workdir)[7])
    assert (taken.image_shape, taken.classes) == (dataset.image_shape, dataset.classes)
    assert set(taken.variables) == {"params", "batch_stats"}
    assert taken.variables["params"]["dense1"]["kernel"].shape == (10, 16)
    images = dataset.test.images[:5]
    normalized = ((images / 255 - dataset.mean) / dataset.std).astype(np.float32)
    np.testing.assert_allclose(images * taken.scale + taken.shift, normalized, atol=1e-5)
    logits = logits_of(taken.network, taken.variables, images * taken.scale + taken.shift)
    np.testing.assert_allclose(logits, taken.logits(images), rtol=1e-5, atol=1e-5)
    assert taken.logits(images[:0]).shape == (0, 10)
    for other in (images / 255, images[..., 0], np.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)))):
        with pytest.raises(RequestError, match=r"images must be uint8 \[N, 8, 8, 1\]"):
            taken.logits(other)


def beginning(trial, trials):
    """The first letters of a trial's id that no other trial has."""
    return next(trial[:count] for count in range(2, 14) if sum(t.startswith(trial[:count]) for t in trials) == 1)


@pytest.mark.slow
def test_the_beginning_of_an_id_names_a_trial(trained):
    trials = trial_ids(trained[0])
    for trial in trials:
        assert cnnjax.load_trial(trained[0], beginning(trial, trials)).trial.id == trial


def test_an_unknown_trial_is_refused(trained):
    trials = trial_ids(trained[0])
    listed = f"an id of trials.csv ({', '.join(trials[:3])}, ...), or its beginning"
    for trial, words in ((f"{trials[7]}0", f"did you mean {trials[7]!r}? Use {listed}"), ("t", listed), ("", listed)):
        with pytest.raises(RequestError) as error:
            cnnjax.load_trial(trained[0], trial)
        assert words in str(error.value)


def test_a_trial_without_weights_is_refused(trained, tmp_path):
    workdir, trials = tmp_path / "copy", trial_ids(trained[0])
    shutil.copytree(trained[0], workdir)
    (chunk,) = workdir.glob("checkpoints/*/*/")
    shutil.rmtree(chunk / "1")
    with pytest.raises(RequestError, match=rf"'{trials[0]}'.*checkpoints has no state of its epoch 1"):
        cnnjax.load_trial(workdir, trials[0])
    assert cnnjax.load_trial(workdir, trials[2]).trial.epochs == 3
    (file,) = workdir.glob("programs/*/trials.jsonl")
    file.write_text("".join(line for line in file.open() if trials[4] not in line))
    with pytest.raises(RequestError, match=rf"'{trials[4]}'.*it has not finished"):
        cnnjax.load_trial(workdir, trials[4])
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(RequestError, match=rf"'{trials[5]}'.*checkpoints has no state"):
        cnnjax.load_trial(workdir, trials[5])


@pytest.mark.slow
def test_a_diverged_trial_is_refused_and_no_part_of_an_ensemble(tmp_path):
    train(tmp_path, train={"learning_rate": (0.05, 1e30)}, select="val_loss")
    run, (ended, diverged) = read_run(tmp_path), trial_ids(tmp_path)
    with pytest.raises(RequestError, match=rf"'{diverged}'.*it diverged in epoch 1"):
        cnnjax.load_trial(tmp_path, diverged)
    assert prediction.ensemble(run, "best") == [ended]
    with pytest.raises(RequestError, match=rf"--configuration must be best, or a trial .* got '{diverged}'"):
        prediction.ensemble(run, diverged)


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: (folder / "file").touch()])
def test_a_folder_that_is_no_run_is_refused(tmp_path, make):
    make(tmp_path)
    with pytest.raises(RequestError, match=r"workdir.*config\.json"):
        cnnjax.load_trial(tmp_path, "t3f9")


# Files of unlabeled images


def test_the_output_is_the_mean_of_the_probabilities_of_all_seeds(trained, tmp_path):
    workdir, dataset = trained
    source, output = save(tmp_path, dataset.test.images), tmp_path / "labels.csv"
    output.write_text("what stood here before")
    said = prediction.predict_file(workdir, source, output)

    results = cnnjax.load_results(workdir)
    means = results.groupby(["learning_rate", "epochs"]).val_loss.mean()
    rate, epochs = means.idxmin()
    seeds = results[(results.learning_rate == rate) & (results.epochs == epochs)]
    assert len(seeds) == 2 and all(trial in said for trial in seeds.trial)

    table = pd.read_csv(output, dtype={"ID": str, "class": str})
    assert list(table) == ["ID", "label", "class", *dataset.classes]
    assert list(table.ID) == [str(index) for index in range(len(dataset.test))]
    expected = np.mean(
        [scipy.special.softmax(stored_logits(workdir, trial).astype(float), axis=1) for trial in seeds.trial], axis=0
    )
    found = table[list(dataset.classes)].to_numpy()
    np.testing.assert_allclose(found, expected, rtol=2**-8, atol=1e-5)  # an error of a logit, made relative by exp
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(table.label, found.argmax(1))
    assert [dataset.classes[label] for label in table.label] == list(table["class"])
    assert {path.name for path in tmp_path.iterdir()} == {"new.npy", "labels.csv"}


def test_no_two_columns_have_one_name(tmp_path):
    for classes, true in itertools.product((["cat", "dog"], ["cat", "label"], ["cat", "true class"]), (None, ["cat"])):
        found = Unlabeled(["0"], np.zeros((1, 2, 2, 1), np.uint8), true)
        prediction._write(tmp_path / "labels.csv", found, np.array([[0.25, 0.75]]), classes)
        header, row = (tmp_path / "labels.csv").read_text().splitlines()
        columns = ["ID", "label", "class", *(["true class"] if true else [])]
        assert row == f"0,1,{classes[1]},{'cat,' if true else ''}0.25,0.75"
        names = [f"probability of {name}" for name in classes] if set(classes) & set(columns) else classes
        assert header.split(",") == [*columns, *names] and len(set(header.split(","))) == len(columns) + 2


def test_one_trial_or_any_configuration_can_be_named(trained, tmp_path):
    (workdir, dataset), run = trained, read_run(trained[0])
    source, output = save(tmp_path, dataset.test.images), tmp_path / "labels.csv"
    results = cnnjax.load_results(workdir).set_index("trial")
    named = beginning(results.index[2], results.index)
    assert prediction.predict_file(workdir, source, output, trial=named).endswith(f"by {results.index[2]}")
    np.testing.assert_array_equal(pd.read_csv(output).label, stored_logits(workdir, results.index[2]).argmax(1))
    for trial in results.index:
        alike = (results[["learning_rate", "epochs"]] == results.loc[trial, ["learning_rate", "epochs"]]).all(axis=1)
        for named in (trial, beginning(trial, results.index)):
            assert prediction.ensemble(run, named) == list(results.index[alike])


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["bilinear", "nearest", "pad"])
def test_images_are_brought_to_size_as_the_study_brings_its_own(resize, tmp_path):
    """Of gray images and, told to be three colors, of the same: a network of colors takes both."""
    gray = load_dataset(make_study().data)
    arrays = {}
    for name, split in (("train", gray.train), ("test", gray.test)):
        arrays |= {f"x_{name}": split.images.repeat(3, axis=-1), f"y_{name}": split.labels}
    np.savez(tmp_path / "data.npz", **arrays)
    data = {"path": str(tmp_path / "data.npz"), "train_examples": 100, "image_size": 12, "resize": resize}
    dataset: Dataset = train(tmp_path / "run", data=data, train={"epochs": 1})
    assert dataset.image_shape == (12, 12, 3)
    run = read_run(tmp_path / "run")
    for images in (arrays["x_test"], gray.test.images, list(gray.test.images)):
        ids = [str(index) for index in range(len(images))]
        fitted = prediction.fit_images(images, ids, "new.npy", (12, 12, 3), run.config["data"])
        np.testing.assert_array_equal(fitted, dataset.test.images)
    output = tmp_path / "labels.csv"
    prediction.predict_file(tmp_path / "run", save(tmp_path, gray.test.images), output)
    np.testing.assert_array_equal(
        pd.read_csv(output).label, stored_logits(tmp_path / "run", *trial_ids(tmp_path / "run")).argmax(1)
    )


def test_images_of_several_sizes_meet_in_one():
    sizes = [(4, 6), (6, 6), (3, 2)]
    images = [np.full((*size, 1), 7 + index, np.uint8) for index, size in enumerate(sizes)]
    fitted = prediction.fit_images(images, "abc", "folder", (6, 6, 1), {"image_size": 6, "resize": "nearest"})
    for image, one in zip(images, fitted, strict=True):
        np.testing.assert_array_equal(one[..., 0], Image.fromarray(image[..., 0]).resize((6, 6)))


@pytest.mark.parametrize(
    ("shape", "data", "words"),
    [
        ((9, 8, 1), {"image_size": None}, ["9x8x1", "must be 8x8x1"]),
        ((8, 8, 3), {"image_size": None}, ["8x8x3", "must be 8x8x1"]),
        ((9, 8, 3), {"image_size": 8, "resize": "nearest"}, ["9x8x3", "must be 8x8x1"]),
        ((9, 8, 1), {"image_size": 8, "resize": "pad"}, ["9x8x1", "at most 8x8", "pads"]),
    ],
)
def test_an_image_that_does_not_fit_is_named(shape, data, words):
    images = [np.zeros((8, 8, 1), np.uint8), np.zeros(shape, np.uint8)]
    with pytest.raises(RequestError) as error:
        prediction.fit_images(images, ["first.png", "second.png"], "folder", (8, 8, 1), data)
    assert all(word in str(error.value) for word in ["--input", "folder", "second.png", *words]), error.value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "nowhere.npy"}, ["--input", "nowhere.npy", "no such file"]),
        ({"output": "nowhere/labels.csv"}, ["--output", "there is no folder"]),
        ({"output": "."}, ["--output", "it is a folder"]),
        ({"output": "new.npy"}, ["--output", "it is what --input reads"]),
        ({"output": "pipe"}, ["--output", "it is a device or a pipe; use a file"]),
        ({"output": "run/trials.csv"}, ["--output", "it is the run's own; use another file"]),
        ({"output": "link.png", "source": "photos"}, ["--output", "it is what --input reads"]),
        ({"figures": "labels.csv"}, ["--figures", "--output names that file; use a folder"]),
        ({"output": "photos/index.html", "figures": "photos"}, ["--output", "--figures", "use a .csv file"]),
        ({"figures": "run/report"}, ["--figures", "it is the run's own; use another folder"]),
        ({"figures": "run"}, ["--figures", "it is the run's own"]),
        ({"figures": "new.npy"}, ["--figures", "File exists", "use a folder"]),
        ({"trial": "tx"}, ["trial", "tx", "an id of trials.csv"]),
        ({"configuration": "bets"}, ["--configuration", "bets", "best"]),
        ({"workdir": "nowhere"}, ["workdir", "nowhere", "config.json"]),
    ],
)
def test_what_cannot_be_predicted_is_refused_and_nothing_written(trained, changes, words, tmp_path):
    request = {"workdir": trained[0], "source": save(tmp_path, trained[1].test.images[:3]), "output": "labels.csv"}
    request |= changes
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/0.png").write_bytes(b"an image")
    (tmp_path / "link.png").symlink_to("photos/0.png")
    (tmp_path / "run").symlink_to(trained[0])
    before = sorted(tmp_path.rglob("*"))
    if not Path(request["source"]).is_absolute():
        request["source"] = str(tmp_path / request["source"])
    for key in {"workdir", "output", "figures"} & set(request):
        request[key] = tmp_path / request[key]
    with pytest.raises(RequestError) as error:
        prediction.predict_file(**request)
    assert all(word in str(error.value) for word in words), error.value
    assert sorted(tmp_path.rglob("*")) == before and not (trained[0] / "labels.csv").exists()
    assert (tmp_path / "photos/0.png").read_bytes() == b"an image"


@pytest.mark.parametrize("before", [None, "what stood here before"])
def test_an_output_that_is_a_link_stays_one(before, trained, tmp_path):
    (tmp_path / "kept").mkdir()
    if before is not None:
        (tmp_path / "kept/labels.csv").write_text(before)
    (tmp_path / "labels.csv").symlink_to("kept/labels.csv")
    source = save(tmp_path, trained[1].test.images[:3])
    prediction.predict_file(trained[0], source, tmp_path / "labels.csv", trial=trial_ids(trained[0])[1])
    assert (tmp_path / "labels.csv").is_symlink() and len(pd.read_csv(tmp_path / "kept/labels.csv")) == 3


@pytest.mark.parametrize("name", ["l" * 251, "é" * 125])
def test_the_output_may_have_as_long_a_name_as_the_system_allows(name, trained, tmp_path):
    source = save(tmp_path, trained[1].test.images[:3])
    prediction.predict_file(trained[0], source, tmp_path / f"{name}.csv", trial=trial_ids(trained[0])[1])
    assert len(pd.read_csv(tmp_path / f"{name}.csv")) == 3


def test_a_run_without_a_finished_trial_is_refused(trained, tmp_path):
    for name in ("config", "environment", "data", "plan"):
        shutil.copy(trained[0] / f"{name}.json", tmp_path)
    with pytest.raises(RequestError, match=r"--configuration='best'.*has finished"):
        prediction.predict_file(tmp_path, "new.npy", tmp_path / "labels.csv")


@pytest.mark.slow
def test_figures_show_every_image_under_its_class(trained, tmp_path):
    """The first 32 images, and the first 20 of each class, as pixels of the figures' own."""
    workdir, dataset = trained
    images = np.zeros((300, 8, 8, 1), np.uint8)
    images[:, :4] = dataset.test.images[:300, :4]
    images[:, 7, 7, 0] = np.arange(300) % 250
    said = prediction.predict_file(workdir, save(tmp_path, images), tmp_path / "labels.csv", figures=tmp_path / "page")
    assert said.endswith(str(tmp_path / "page/index.html"))
    page = (tmp_path / "page/index.html").read_text()
    assert "predicted_first" in page and "predicted_by_class" in page
    table = pd.read_csv(tmp_path / "labels.csv", dtype={"class": str})
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.axes.Axes.imshow", lambda axes, picture, **_: shown.append((axes, picture)))
        predictions.figures(images, table.label.to_numpy(), dataset.classes)
    *first, (_, by_class) = shown
    assert [axes.get_title() for axes, _ in first] == list(table["class"][:32])
    for (_, picture), image in zip(first, images, strict=False):
        np.testing.assert_array_equal(picture, image.repeat(3, axis=-1))
    for label in range(len(dataset.classes)):
        (of_class,) = np.nonzero(table.label.to_numpy() == label)
        for column in range(20):
            tile = by_class[9 * label : 9 * label + 8, 9 * column : 9 * column + 8, 0]
            expected = images[of_class[column], ..., 0] if column < len(of_class) else np.full((8, 8), 255)
            np.testing.assert_array_equal(tile, expected)


@pytest.mark.parametrize("count", [1, 9])
def test_figures_of_few_images(count):
    plots = predictions.figures(np.zeros((count, 8, 8, 3), np.uint8), np.zeros(count, int), ["a", "b"])
    assert f"The first {count} images" in plots[0].caption and all(plot.png for plot in plots)


def save_by_class(folder, images, labels, names):
    """Writes each image into its class's folder; returns the order in which they are read."""
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / names[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / names[label] / f"{index:04d}.png")
    return sorted(range(len(labels)), key=lambda index: (names[labels[index]], index))


def test_images_in_folders_of_their_classes_are_judged(trained, tmp_path):
    workdir, dataset = trained
    images, labels = dataset.test.images[:90], dataset.test.labels[:90]
    order = save_by_class(tmp_path / "photos", images, labels, dataset.classes)
    (tmp_path / "photos" / "3" / "more.HEIC").touch()
    trial = trial_ids(workdir)[5]
    said = prediction.predict_file(workdir, str(tmp_path / "photos"), tmp_path / "labels.csv", trial=trial)
    table = pd.read_csv(tmp_path / "labels.csv")
    assert list(table["ID"]) == [f"{labels[i]}/{i:04d}.png" for i in order]
    assert list(table["true class"]) == list(labels[order])
    predicted = stored_logits(workdir, trial)[:90].argmax(1)
    assert list(table["class"]) == list(predicted[order])
    confusion = pd.read_csv(tmp_path / "labels.confusion.csv", index_col="true class")
    np.testing.assert_array_equal(confusion, confusion_matrix(labels, predicted, labels=range(10)))
    assert list(confusion.columns) == list(confusion.index.astype(str)) == list(dataset.classes)
    hits = (predicted == labels).sum()
    first, note, accuracy, *matrix = said.splitlines()
    assert first.endswith(f"90 images, by {trial}") and note == "left out, not read as images: 1 .HEIC"
    assert (
        accuracy.startswith(f"accuracy {100 * hits / 90:.2f} % ({hits} of 90)") and "labels.confusion.csv" in accuracy
    )
    assert matrix[2].split() == ["0", *map(str, confusion.iloc[0])]


def test_a_folder_that_is_no_class_is_refused(trained, tmp_path):
    for name in ("3", "33"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(trained[1].test.images[0, ..., 0]).save(tmp_path / "photos" / name / "a.png")
    (tmp_path / "photos" / "4").mkdir()
    with pytest.raises(RequestError, match=r"^--input=.*its folder 33 is no class of the run; did you mean '3'\?"):
        prediction.predict_file(trained[0], str(tmp_path / "photos"), tmp_path / "labels.csv")
    shutil.rmtree(tmp_path / "photos" / "33")
    (tmp_path / "labels.confusion.csv").mkdir()
    with pytest.raises(RequestError, match=r"^--output=.*labels\.confusion\.csv beside it is no file"):
        prediction.predict_file(trained[0], str(tmp_path / "photos"), tmp_path / "labels.csv")
    (tmp_path / "photos/3/out.png").touch()
    with pytest.raises(RequestError, match=r"^--output=.*it is what --input reads"):
        prediction.predict_file(trained[0], str(tmp_path / "photos"), tmp_path / "photos/3/out.png")
    assert not (tmp_path / "labels.csv").exists()


def test_one_image_and_floating_point_are_predicted_as_their_bytes(trained, tmp_path):
    workdir, dataset = trained
    images = dataset.test.images[:5]
    Image.fromarray(images[0, ..., 0]).save(tmp_path / "one.png")
    sources = {
        "bytes": save(tmp_path, images),
        "unit": save(tmp_path, images / 255, "unit.npy"),
        "range": save(tmp_path, images.astype(np.float32), "range.npy"),
        "one": str(tmp_path / "one.png"),
    }
    rows = {}
    for name, source in sources.items():
        prediction.predict_file(workdir, source, tmp_path / "labels.csv", trial=trial_ids(workdir)[5])
        rows[name] = (tmp_path / "labels.csv").read_text().splitlines()
    assert rows["unit"] == rows["range"] == rows["bytes"] and len(rows["one"]) == 2
    assert rows["one"][1].split(",")[:3] == ["one.png", *rows["bytes"][1].split(",")[1:3]]


# The command


def test_the_command_line_says_which_trials(trained, tmp_path, capsys):
    workdir, dataset = trained
    source, output = save(tmp_path, dataset.test.images[:4]), tmp_path / "labels.csv"
    words = ["predict", str(workdir), f"--input={source}", f"--output={output}"]
    trials = trial_ids(workdir)
    for more, count in ([], 2), ([f"--trial={trials[1]}"], 1), (["--configuration", trials[1]], 2):
        predict.main(predict.parse([*words, *more]))
        said = capsys.readouterr().out
        assert said.startswith(f"{output}: 4 images, by ") and sum(trial in said for trial in trials) == count
    assert len(pd.read_csv(output)) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["required: --input, --output", "usage"]),
        (["--input=a.npy", "--output=b.csv"], ["name one run's folder", "usage"]),
        (["run", "--input=a.npy", "--output=b.csv", "--inptu=c"], ["--inptu=c", "usage"]),
        (
            ["run", "--input=a.npy", "--output=b.csv", "--trial=t0", "--configuration=t1"],
            ["--configuration", "not allowed with"],
        ),
        (["run", "--input=a.npy", "--output=b.csv"], ["workdir", "'run'", "config.json"]),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(arguments, words, tmp_path):
    command = [sys.executable, "-B", "-m", "cnnjax.predict", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert all(word in done.stderr for word in words), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_statistics_of_the_run_are_used_not_those_of_the_new_images(trained, tmp_path):
    """One image alone is predicted as among the others; and data.json is where the constants come from."""
    workdir, dataset = trained
    trial = trial_ids(workdir)[4]
    taken = cnnjax.load_trial(workdir, trial)
    alone, among = taken.logits(dataset.test.images[3:4]), taken.logits(dataset.test.images)[3:4]
    np.testing.assert_allclose(alone, among, rtol=1e-5, atol=1e-5)
    shutil.copytree(workdir, tmp_path / "copy")
    data = RunFolder(workdir).read_if_intact("data.json")
    RunFolder(tmp_path / "copy").write_json("data.json", data | {"mean": [0.9]})
    assert not np.allclose(cnnjax.load_trial(tmp_path / "copy", trial).shift, taken.shift)
