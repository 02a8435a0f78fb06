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
from cnnjax.utils.text import completed, counted

_COLUMNS = ("ID", "label", "class", "true class")
_SHOWN = 12  # classes of a confusion matrix that is printed, at most


def predict_file(
    workdir: Path,
    source: str,
    output: Path,
    trial: str | None = None,
    configuration: str = "best",
    figures: Path | None = None,
    *,
    augment: str | None = None,
    trust_code: bool = False,
) -> str:
    """Predicts the classes of images, and writes them to a CSV file.

    Args:
        workdir: a run's folder.
        source: the images, see `read_unlabeled`. They are resized as the run's study resizes its own, and gray images
            get the number of channels of the network.
        output: the CSV file. Its columns are ID, label (number of the class), class (its name), true class (if the
            images lie in one folder per class) and the probability of each class. The column of a class has its name,
            or `probability of NAME` if the name is that of another column. The confusion matrix, if the true classes
            are known, is written beside the file.
        trial: predict with this trial only: its id or the beginning of its id. None predicts with `configuration`.
        configuration: `best` or any trial of a configuration, by its id or the beginning of its id. The probabilities
            are means over all its seeds.
        figures: a folder for a page with the first images and the first of each class.
        augment: average the logits over views of each image, see `test_time.averaged_logits`. None does as the study
            did for its test images.
        trust_code: whether to run the copies of own code in `workdir`, if the original files have changed.

    Returns:
        A summary: one line on the output, notes on the images, the accuracy and confusion matrix if the true classes
        are known, and the path of the page.

    Raises:
        RequestError: the run, the trial, an image or the output is invalid; no file was written.
    """
    run = read_run(workdir)
    trials = [trial] if trial is not None else ensemble(run, configuration)
    _check_output(output, source, workdir, figures)
    found = read_unlabeled(source)
    truth = _true_labels(found, source, run.classes)
    confusion = _confusion_file(output, workdir) if truth is not None else None
    if len(shape := tuple(run.data.get("image_shape", ()))) != 3:
        raise RequestError("workdir", str(workdir), f"data.json has the image_shape {shape}; use three numbers")
    fitted = fit_images(found.images, found.ids, source, shape, run.config.get("data", {}))
    if figures is not None:
        make_folder("--figures", figures)

    from cnnjax.training.load import load_trials  # imports jax: check the request first

    probabilities = np.zeros((len(fitted), len(run.classes)))
    used = []
    for trained in load_trials(workdir, trials, trust_code=trust_code):
        probabilities += softmax(trained.logits(fitted, augment).astype(np.float64), axis=1) / len(trials)
        used.append(trained.trial.id)
    _write(output, found, probabilities, run.classes)
    by = used[0] if len(used) == 1 else f"the mean of {', '.join(used)}"
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
    """Returns the label of each image by its folder; None if folders are not classes."""
    if found.classes is None:
        return None
    for name in sorted(set(found.classes) - set(classes)):
        raise RequestError("--input", source, f"its folder {name} is no class of the run; {one_of(name, classes)}")
    return np.array([classes.index(name) for name in found.classes])


def _confusion_file(output: Path, workdir: Path) -> Path:
    """Returns the path of the confusion matrix; raises RequestError if it cannot be written there."""
    path = expanded("--output", output.with_name(f"{output.stem}.confusion.csv"))
    if path.exists() and not path.is_file():
        raise RequestError("--output", str(output), f"{path} beside it is no file; use another name")
    if _belongs_to(_end(workdir), _end(path)):
        raise RequestError("--output", str(output), f"{path} beside it is the run's own; use another name")
    return path


def _write_confusion(path: Path, counts: np.ndarray, classes: list[str]) -> str:
    """Writes a confusion matrix [true, predicted]; returns the accuracy and, for few classes, the matrix as text."""
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
    """Raises RequestError if an output cannot be written, or would replace the input or a file of the run."""
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
    """Returns a path with all links resolved."""
    return Path(os.path.realpath(path))


def _belongs_to(run: Path, place: Path) -> bool:
    """Returns whether a path is a run's folder, or a file or folder that the run writes."""
    return place == run or any(place.is_relative_to(run / name) for name in RunFolder.CONTENTS)


def ensemble(run: Run, configuration: str) -> list[str]:
    """Returns the trials of a configuration that did not diverge.

    Args:
        run: the run.
        configuration: `best`, or any trial of the configuration, by its id or the beginning of its id.

    Raises:
        RequestError: no trial has finished with a value to select by, or the trial does not exist or diverged.
    """
    number: int | None
    if configuration == "best":
        number = run.best
        if number is None:
            raise RequestError(
                "--configuration", configuration, f"no trial of {run.workdir} has finished to select by {run.select}"
            )
    else:
        found = run.ok.loc[run.ok["trial"] == completed(configuration, run.trials["trial"]), "configuration"]
        if found.empty:
            raise RequestError(
                "--configuration", configuration, "must be best, or a trial that ended well, as in trials.csv"
            )
        number = int(found.iloc[0])
    return run.ok.loc[run.ok["configuration"] == number, "trial"].tolist()


def fit_images(
    images: Sequence[np.ndarray] | np.ndarray,
    ids: Sequence[str],
    source: str,
    shape: tuple[int, int, int],
    data: dict[str, Any],
) -> np.ndarray:
    """Brings images to the shape that a network was trained on.

    Args:
        images: the images, each uint8 [H, W, C].
        ids: the IDs of the images.
        source: the file or folder of the images.
        shape: the target shape (H, W, C).
        data: the `data` group of a study. With an `image_size`, images are resized by the method `resize`; without,
            all must have the target size.

    Returns:
        The images, uint8 [N, H, W, C].

    Raises:
        RequestError: an image has another size, or has colors and the network takes gray images.
    """
    fitted = np.empty((len(images), *shape), np.uint8)
    for index, image in enumerate(images):
        if image.shape[-1] == 1:
            image = np.broadcast_to(image, (*image.shape[:2], shape[-1]))  # gray: equal channels
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
