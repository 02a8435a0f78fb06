"""Reads data that tensorflow-datasets has prepared, without TensorFlow or a network."""

import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data.cache import cached
from cnnjax.data.dataset import Source, Split
from cnnjax.data.download import PUBLISHED
from cnnjax.data.readers.detect import ACCEPTED
from cnnjax.data.resize import resize_images
from cnnjax.study.schema import DataConfig
from cnnjax.utils.errors import RequestError, one_of
from cnnjax.utils.progress import tracked
from cnnjax.utils.text import first_line

_CHUNK = 500  # records per read: larger is no faster


def data_folder() -> Path:
    """Returns $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def read_prepared(data: DataConfig) -> Source:
    """Reads a prepared data set, in the stored order of its records.

    Args:
        data: `name` is the name in tensorflow-datasets, with `/config` if there are several configs. If the images
            differ in size, they are resized to `image_size`.

    Raises:
        RequestError: the data set is missing or damaged, or does not consist of images with one label each.
    """
    folder = _newest_version(data.name)
    try:
        return _read(folder, data)
    except RequestError:  # a ValueError
        raise
    except (OSError, RuntimeError, ValueError) as error:
        problem = f"the copy in {folder} is damaged ({first_line(error)})"
        raise RequestError("data.name", data.name, f"{problem}; delete the folder and prepare it again") from error


def _read(folder: Path, data: DataConfig) -> Source:
    info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    features = json.loads((folder / "features.json").read_text(encoding="utf-8"))
    if info.get("fileFormat") != "array_record":
        advice = "use array_record, the file_format of download_and_prepare"
        raise RequestError("data.name", data.name, f"{folder} holds {info.get('fileFormat')}; {advice}")
    reader = _Reader(folder, data, info, features)
    files = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.iterdir())]
    resized = reader.size and (reader.size, data.resize)
    key: dict[str, Any] = {"folder": str(folder.resolve()), "files": files, "resized": resized}
    if "validation" in reader.splits:  # entries of older versions lack this split
        key["splits"] = reader.splits
    arrays = cached(data.name, key, reader.read)
    splits = {name: Split(arrays[f"{name}_images"], arrays[f"{name}_labels"]) for name in reader.splits}
    return Source(splits["train"], splits.get("test"), reader.classes(), splits.get("validation"))


def _newest_version(name: str) -> Path:
    """Returns the folder of the newest prepared version of a data set."""
    root = data_folder()
    found = _versions(root / name)
    if not found:
        raise RequestError("data.name", name, _missing(name, root))
    configs = sorted({str(folder.parent.relative_to(root)) for folder in found})
    if len(configs) > 1:
        raise RequestError("data.name", name, f"must be one of its configs, {', '.join(configs)}")
    return max(found, key=lambda folder: [int(part) for part in folder.name.split(".")])


def _versions(folder: Path) -> list[Path]:
    """Returns the folders of prepared versions (x.y.z) in folder/ and folder/config/."""
    found = [path.parent for pattern in ("*", "*/*") for path in folder.glob(f"{pattern}/dataset_info.json")]
    return [version for version in found if re.fullmatch(r"\d+\.\d+\.\d+", version.name)]


def _missing(name: str, root: Path) -> str:
    """Returns the problem of a data set that is not prepared: the place that was searched, and the remedies."""
    problem = f"no prepared copy: looked for {root / name}/**/dataset_info.json; "
    if name in PUBLISHED:
        problem += f"download it once: python -m cnnjax.data.prepare {name} --data_dir={root}; "
    else:
        prepared = [path.name for path in root.glob("*") if _versions(path)]
        problem += f"{one_of(name, {'digits', *PUBLISHED, *prepared})}; or any name that "
        problem += "tensorflow-datasets has prepared there as array_record; "
    return f"{problem}or set TFDS_DATA_DIR to the folder that holds it; or data.path to {ACCEPTED}"


class _Reader:
    """Reads one prepared version of a data set."""

    def __init__(self, folder: Path, data: DataConfig, info: dict, features: dict):
        self.folder, self.data = folder, data
        stored = [split["name"] for split in info["splits"]]
        self.splits = [name for name in ("train", "test", "validation") if name in stored]
        try:
            pair = info["supervisedKeys"]["tuple"]["items"]
            self.image_key, self.label_key = (item["featureKey"] for item in pair)
            features = features["featuresDict"]["features"]
            image = features[self.image_key]["image"]
            self.shape = [int(size) for size in image["shape"]["dimensions"]]
            self.count = int(features[self.label_key]["classLabel"]["numClasses"])
            readable = image["dtype"] == "uint8" and self.shape[-1] in (1, 3) and "train" in stored
        except (KeyError, TypeError, ValueError):
            readable = False
        if not readable:
            required = "uint8 images, gray or RGB, with one class label each, and a train split"
            raise RequestError("data.name", data.name, f"must be a data set of {required}")
        differ = min(self.shape[:2]) < 1  # -1: sizes vary
        if differ and data.image_size is None:
            raise RequestError("data.image_size", None, f"the images of {data.name} differ in size; use a size")
        self.size = data.image_size if differ else None

    def classes(self) -> tuple[str, ...]:
        """Returns the class names, or the labels as text if the classes are not named."""
        path = self.folder / f"{self.label_key}.labels.txt"
        names = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return tuple(names) or tuple(str(label) for label in range(self.count))

    def read(self) -> dict[str, np.ndarray]:
        """Decodes the train, test and validation splits."""
        import tensorflow_datasets as tfds  # lazily: cached data does not need it

        arrays = {}
        builder: Any = tfds.builder_from_directory(self.folder)
        decoders = {self.image_key: tfds.decode.SkipDecoding()}
        for name in self.splits:
            source = builder.as_data_source(split=name, decoders=decoders)
            arrays[f"{name}_labels"] = labels = np.zeros(len(source), np.int32)
            images = self._decode(source, labels, name)
            if self.size is not None:
                arrays[f"{name}_images"] = resize_images(images, self.size, self.data.resize)
            else:
                shape = np.dtype((np.uint8, tuple(self.shape)))
                arrays[f"{name}_images"] = np.fromiter(images, shape, len(source))
        return arrays

    def _decode(self, source: Any, labels: np.ndarray, name: str) -> Iterator[np.ndarray]:
        """Yields each decoded image [H, W, C], writing its label into `labels`."""
        from PIL import Image

        mode = "L" if self.shape[-1] == 1 else "RGB"
        for start in tracked(range(0, len(source), _CHUNK), f"decoding {self.data.name} {name}, once"):
            chunk = range(start, min(start + _CHUNK, len(source)))
            for index, record in zip(chunk, source.__getitems__(list(chunk)), strict=True):
                labels[index] = record[self.label_key]
                image = Image.open(io.BytesIO(record[self.image_key])).convert(mode)
                yield np.asarray(image).reshape(image.height, image.width, -1)
