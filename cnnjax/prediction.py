"""Predicts unlabelled images with the trained networks of a run, into a CSV file."""

import csv
import io
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from cnnjax.data.images import resize_images
from cnnjax.data.pictures import is_picture
from cnnjax.data.unlabelled import read_unlabelled
from cnnjax.paths import expanded, make_folder
from cnnjax.records import RunFolder
from cnnjax.report import parts
from cnnjax.report.predicted import draw_predicted
from cnnjax.report.read import Run, read_run
from cnnjax.sealed import replaced
from cnnjax.types import RequestError

_COLUMNS = ("ID", "label", "class")


def predict_file(
    workdir: Path,
    source: str,
    output: Path,
    trial: str | None = None,
    setting: str = "best",
    figures: Path | None = None,
) -> str:
    """Predicts every image of a file or folder.

    Args:
        workdir: a run's folder.
        source: the images, see `read_unlabelled`; they are brought to size as the run's study brings its own, and grey
            ones to as many channels as it has.
        output: a CSV file with the columns ID, label (the class's number), class (its name), and for each class a
            column of its name with the probability (`probability of` its name, where a class is called ID, label or
            class).
        trial: predict with this trial alone.
        setting: otherwise with every seed of this setting, whose probabilities are averaged: `best` (what the study
            selects), or any of its trials.
        figures: a folder for a page of the first images with their classes, and of the first of each class.

    Returns:
        What was done, in one line, or two with figures.

    Raises:
        RequestError: the run, the trial, an image or the output does not allow it; no file was written.
    """
    run = read_run(workdir)
    trials = [trial] if trial is not None else ensemble(run, setting)
    _check_output(output, source, workdir, figures)
    ids, images = read_unlabelled(source)
    if len(shape := tuple(run.data.get("image_shape", ()))) != 3:
        raise RequestError("workdir", str(workdir), f"data.json has the image_shape {shape}; allowed: three numbers")
    fitted = fit_images(images, ids, source, shape, run.config.get("data", {}))
    if figures is not None:
        make_folder("--figures", figures)

    from cnnjax.trained import load_trials  # imports jax: a wrong request is answered before

    probabilities = np.zeros((len(fitted), len(run.classes)))
    for trained in load_trials(workdir, trials):
        probabilities += softmax(trained.logits(fitted).astype(np.float64), axis=1) / len(trials)
    _write(output, ids, probabilities, run.classes)
    by = trials[0] if len(trials) == 1 else f"the mean of {', '.join(trials)}"
    said = f"{output}: {len(ids):,} images, by {by}"
    if figures is None:
        return said
    plots = list(draw_predicted(fitted, probabilities.argmax(1), run.classes))
    sections = [parts.Section("figures", "Figures", parts.figures(plots))]
    page = parts.document(output.name, f"<h1>{escape(said)}</h1>", sections)
    return f"{said}\n{parts.write(figures, page, (), plots)}"


def _check_output(output: Path, source: str, workdir: Path, figures: Path | None) -> None:
    """Refuses an output that cannot be written, or that would take the place of what is needed."""
    given = expanded("--input", source)
    read = filter(is_picture, given.iterdir()) if given.is_dir() else [given]
    place, run = _end(output), _end(workdir)
    fault = None
    if not place.parent.is_dir():
        fault = f"there is no folder {place.parent}"
    elif place.is_dir():
        fault = "it is a folder; allowed: a file"
    elif place.exists() and not place.is_file():
        fault = "it is a device or a pipe; allowed: a file"
    elif place.exists() and place in map(_end, read):
        fault = "it is what --input reads; allowed: another file"
    elif _belongs_to(run, place):
        fault = "it is the run's own; allowed: another file"
    if fault is not None:
        raise RequestError("--output", str(output), fault)
    if figures is None:
        return
    page = _end(figures)
    if page.is_relative_to(place):
        raise RequestError("--figures", str(figures), "--output names that file; allowed: a folder")
    if place.parent == page and place.suffix in (".html", ".svg", ".png"):
        raise RequestError("--output", str(output), "the page of --figures may be of that name; allowed: a .csv file")
    if _belongs_to(run, page):
        raise RequestError("--figures", str(figures), "it is the run's own; allowed: another folder")


def _end(path: Path) -> Path:
    """Returns where what is written to a path ends, all links followed."""
    return Path(os.path.realpath(path))


def _belongs_to(run: Path, place: Path) -> bool:
    """Whether a place is a run's folder, or in it that of something that the run writes."""
    return place == run or any(place.is_relative_to(run / name) for name in RunFolder.CONTENTS)


def ensemble(run: Run, setting: str) -> list[str]:
    """Returns the trials of a setting that did not diverge.

    Args:
        run: the run.
        setting: `best`, or any trial of the setting.

    Raises:
        RequestError: nothing has finished that could be selected, or there is no such trial.
    """
    number: int | None
    if setting == "best":
        number = run.best
        if number is None:
            raise RequestError(
                "--setting", setting, f"no trial of {run.workdir} has finished to select by {run.select}"
            )
    else:
        found = run.ok.loc[run.ok["trial"] == setting, "setting"]
        if found.empty:
            raise RequestError("--setting", setting, "allowed: best, or a trial that ended well, as in trials.csv")
        number = int(found.iloc[0])
    return run.ok.loc[run.ok["setting"] == number, "trial"].tolist()


def fit_images(
    images: Sequence[np.ndarray] | np.ndarray,
    ids: Sequence[str],
    source: str,
    shape: tuple[int, int, int],
    data: dict[str, Any],
) -> np.ndarray:
    """Brings images to the shape that a network was trained on.

    Args:
        images: uint8 [H, W, C] each.
        ids: theirs.
        source: where they are from.
        shape: (H, W, C), wanted.
        data: a study's data settings: with an `image_size`, images are resized as `resize` says; without one, all must
            be of the size wanted.

    Returns:
        uint8 [N, H, W, C].

    Raises:
        RequestError: an image is of another size, or colourful where grey is wanted.
    """
    fitted = np.empty((len(images), *shape), np.uint8)
    for index, image in enumerate(images):
        if image.shape[-1] == 1:
            image = np.broadcast_to(image, (*image.shape[:2], shape[-1]))  # grey: as much of every colour
        if data.get("image_size") is not None and image.shape[-1] == shape[-1] and image.shape[:2] != tuple(shape[:2]):
            image = _resized(image, data, source, ids[index])
        if image.shape != tuple(shape):
            raise _misfit(images[index], source, ids[index], f"allowed: {_size(shape)}, as trained")
        fitted[index] = image
    return fitted


def _resized(image: np.ndarray, data: dict[str, Any], source: str, name: str) -> np.ndarray:
    try:
        return resize_images([image], data["image_size"], data["resize"])[0]
    except RequestError as error:
        most = f"{data['image_size']}x{data['image_size']}"
        raise _misfit(image, source, name, f"allowed: at most {most}, to which the study pads images") from error


def _misfit(image: np.ndarray, source: str, name: str, allowed: str) -> RequestError:
    return RequestError("--input", source, f"its image {name} is {_size(image.shape)}; {allowed}")


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _write(path: Path, ids: Sequence[str], probabilities: np.ndarray, classes: list[str]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"probability of {name}" for name in classes] if set(classes) & set(_COLUMNS) else classes
    writer.writerow([*_COLUMNS, *names])
    for name, row in zip(ids, probabilities, strict=True):
        label = int(row.argmax())
        writer.writerow([name, label, classes[label], *(f"{value:.6g}" for value in row)])
    with replaced(path) as file:
        file.write(text.getvalue().encode())
