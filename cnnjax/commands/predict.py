"""Predicts images with the trained networks of a run, into a CSV file."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from cnnjax.analysis import metrics
from cnnjax.analysis.read import read_run
from cnnjax.analysis.run import Run
from cnnjax.data.readers.image_files import is_image_file
from cnnjax.data.readers.unlabeled import Unlabeled, read_unlabeled
from cnnjax.data.resize import resize_images
from cnnjax.report import html
from cnnjax.report.sections import predictions
from cnnjax.runs.integrity import replaced
from cnnjax.runs.run_dir import RunFolder
from cnnjax.utils.errors import RequestError, one_of
from cnnjax.utils.paths import expanded, make_folder
from cnnjax.utils.text import counted

_COLUMNS = ("ID", "label", "class", "true class")
_SHOWN = 12  # classes of a confusion matrix that is printed, at most


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
        source: the images, see `read_unlabeled`; they are brought to size as the run's study brings its own, and gray
            ones to as many channels as it has.
        output: a CSV file with the columns ID, label (the class's number), class (its name), where the images lie in a
            folder for each class also true class (the folder's name), and for each class a column of its name with the
            probability (`probability of` its name, where a class is called as another column). The confusion matrix of
            such images is written beside it.
        trial: predict with this trial alone.
        setting: otherwise with every seed of this setting, whose probabilities are averaged: `best` (what the study
            selects), or any of its trials.
        figures: a folder for a page of the first images with their classes, and of the first of each class.

    Returns:
        What was done, in one line; what is to be said of how the images were read, a line each; of images in a folder
        for each class accuracy and confusion matrix; and where the page of figures is.

    Raises:
        RequestError: the run, the trial, an image or the output does not allow it; no file was written.
    """
    run = read_run(workdir)
    trials = [trial] if trial is not None else ensemble(run, setting)
    _check_output(output, source, workdir, figures)
    found = read_unlabeled(source)
    truth = _true_labels(found, source, run.classes)
    confusion = _confusion_file(output, workdir) if truth is not None else None
    if len(shape := tuple(run.data.get("image_shape", ()))) != 3:
        raise RequestError("workdir", str(workdir), f"data.json has the image_shape {shape}; use three numbers")
    fitted = fit_images(found.images, found.ids, source, shape, run.config.get("data", {}))
    if figures is not None:
        make_folder("--figures", figures)

    from cnnjax.training.load import load_trials  # imports jax: a wrong request is answered before

    probabilities = np.zeros((len(fitted), len(run.classes)))
    for trained in load_trials(workdir, trials):
        probabilities += softmax(trained.logits(fitted).astype(np.float64), axis=1) / len(trials)
    _write(output, found, probabilities, run.classes)
    by = trials[0] if len(trials) == 1 else f"the mean of {', '.join(trials)}"
    said = [f"{output}: {counted(len(found.ids), 'image')}, by {by}", *found.notes]
    if truth is not None and confusion is not None:
        said.append(_write_confusion(confusion, metrics.confusion(probabilities, truth), run.classes))
    if figures is None:
        return "\n".join(said)
    plots = predictions.figures(fitted, probabilities.argmax(1), run.classes)
    sections = [html.Section("figures", "Figures", plots=plots)]
    page = html.render(output.name, said[0], sections)
    return "\n".join([*said, str(html.write(figures, page, sections))])


def _true_labels(found: Unlabeled, source: str, classes: list[str]) -> np.ndarray | None:
    """Returns the label of each image by the folder that it lies in; None if that says no class."""
    if found.classes is None:
        return None
    for name in sorted(set(found.classes) - set(classes)):
        raise RequestError("--input", source, f"its folder {name} is no class of the run; {one_of(name, classes)}")
    return np.array([classes.index(name) for name in found.classes])


def _confusion_file(output: Path, workdir: Path) -> Path:
    """Returns where the confusion matrix goes, once it is known that it can be written."""
    path = expanded("--output", output.with_name(f"{output.stem}.confusion.csv"))
    if path.exists() and not path.is_file():
        raise RequestError("--output", str(output), f"{path} beside it is no file; use another name")
    if _belongs_to(_end(workdir), _end(path)):
        raise RequestError("--output", str(output), f"{path} beside it is the run's own; use another name")
    return path


def _write_confusion(path: Path, counts: np.ndarray, classes: list[str]) -> str:
    """Writes a confusion matrix [true, predicted]; returns the accuracy and, of few classes, the matrix as text."""
    frame = pd.DataFrame(counts, columns=classes)
    frame.insert(0, "true class", classes, allow_duplicates=True)
    with replaced(path) as file:
        file.write(frame.to_csv(index=False, lineterminator="\n").encode())
    hits, total = int(counts.trace()), int(counts.sum())
    said = f"accuracy {100 * hits / total:.2f} % ({hits:,} of {total:,}); confusion matrix: {path}"
    if len(classes) > _SHOWN:
        return said
    return f"{said}\n\n{frame.to_string(index=False)}\n\nRows: true class; columns: predicted class."


def _check_output(output: Path, source: str, workdir: Path, figures: Path | None) -> None:
    """Refuses an output that cannot be written, or that would take the place of what is needed."""
    given = expanded("--input", source)
    within = (path for pattern in ("*", "*/*") for path in given.glob(pattern))  # also of folders for each class
    read = filter(is_image_file, within) if given.is_dir() else [given]
    place, run = _end(output), _end(workdir)
    fault = None
    if not place.parent.is_dir():
        fault = f"there is no folder {place.parent}"
    elif place.is_dir():
        fault = "it is a folder; use a file"
    elif place.exists() and not place.is_file():
        fault = "it is a device or a pipe; use a file"
    elif place.exists() and place in map(_end, read):
        fault = "it is what --input reads; use another file"
    elif _belongs_to(run, place):
        fault = "it is the run's own; use another file"
    if fault is not None:
        raise RequestError("--output", str(output), fault)
    if figures is None:
        return
    page = _end(figures)
    if page.is_relative_to(place):
        raise RequestError("--figures", str(figures), "--output names that file; use a folder")
    if place.parent == page and place.suffix in (".html", ".svg", ".png"):
        raise RequestError("--output", str(output), "the page of --figures may be of that name; use a .csv file")
    if _belongs_to(run, page):
        raise RequestError("--figures", str(figures), "it is the run's own; use another folder")


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
            raise RequestError("--setting", setting, "must be best, or a trial that ended well, as in trials.csv")
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
        RequestError: an image is of another size, or colorful where gray is wanted.
    """
    fitted = np.empty((len(images), *shape), np.uint8)
    for index, image in enumerate(images):
        if image.shape[-1] == 1:
            image = np.broadcast_to(image, (*image.shape[:2], shape[-1]))  # gray: as much of every color
        if data.get("image_size") is not None and image.shape[-1] == shape[-1] and image.shape[:2] != tuple(shape[:2]):
            image = _resized(image, data, source, ids[index])
        if image.shape != tuple(shape):
            raise _misfit(images[index], source, ids[index], f"must be {_size(shape)}, as trained")
        fitted[index] = image
    return fitted


def _resized(image: np.ndarray, data: dict[str, Any], source: str, name: str) -> np.ndarray:
    try:
        return resize_images([image], data["image_size"], data["resize"])[0]
    except RequestError as error:
        most = f"{data['image_size']}x{data['image_size']}"
        raise _misfit(image, source, name, f"must be at most {most}, to which the study pads images") from error


def _misfit(image: np.ndarray, source: str, name: str, allowed: str) -> RequestError:
    return RequestError("--input", source, f"its image {name} is {_size(image.shape)}; {allowed}")


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _write(path: Path, found: Unlabeled, probabilities: np.ndarray, classes: list[str]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = _COLUMNS if found.classes is not None else _COLUMNS[:3]
    names = [f"probability of {name}" for name in classes] if set(classes) & set(columns) else classes
    writer.writerow([*columns, *names])
    for index, (name, row) in enumerate(zip(found.ids, probabilities, strict=True)):
        label = int(row.argmax())
        truth = [] if found.classes is None else [found.classes[index]]
        writer.writerow([name, label, classes[label], *truth, *(f"{value:.6g}" for value in row)])
    with replaced(path) as file:
        file.write(text.getvalue().encode())
