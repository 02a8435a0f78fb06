"""Prepares a published data set for tensorflow-datasets, without TensorFlow.

    python -m cnnjax.data.prepare cifar10 [--data_dir=...] [--archive_dir=...]

`tfds.data_source('cifar10')` reads the result. Pixels, labels, splits and order equal those of the builder of
tensorflow-datasets. The published archives are downloaded, or read from --archive_dir, and their checksums are
verified.
"""

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cnnjax.data.dataset import Split
from cnnjax.data.download import PUBLISHED, Archive, fetch, read_archives, verify
from cnnjax.data.readers.detect import CLASSES
from cnnjax.data.readers.tfds import data_folder
from cnnjax.utils import cli
from cnnjax.utils.errors import RequestError, one_of
from cnnjax.utils.paths import expanded

_VERSIONS = {"cifar10": "3.0.2", "mnist": "3.0.1", "fashion_mnist": "3.0.1"}  # of the builders of tensorflow-datasets


def prepare(
    name: str, data_dir: Path, archive_dir: Path | None = None, archives: Sequence[Archive] | None = None
) -> Path:
    """Writes a data set as array_record files in `data_dir`, unless it exists.

    Args:
        name: `cifar10`, `mnist` or `fashion_mnist`.
        data_dir: the folder of tensorflow-datasets.
        archive_dir: a folder with the archives (default: they are downloaded).
        archives: the archives and their checksums (default: the published ones).

    Returns:
        The folder of the prepared data set.

    Raises:
        RequestError: the name is unknown, a download fails, or an archive is missing or differs from the published one.
    """
    if name not in PUBLISHED:
        raise RequestError("name", name, one_of(name, PUBLISHED))
    folder = data_dir / name / _VERSIONS[name]
    if (folder / "dataset_info.json").exists():
        return folder
    archives = PUBLISHED[name] if archives is None else archives
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) if archive_dir is None else archive_dir
        for archive in archives:
            if archive_dir is None:
                fetch(archive, source)
            verify(archive, source)
        _write(name, read_archives(name, source), data_dir, scratch)
    return folder


def _write(name: str, splits: dict[str, Split], data_dir: Path, scratch: str) -> None:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    with registered.skip_registration():  # the library has builders of these names
        builder_class = _builder_class(name, splits)
    builder = builder_class(data_dir=data_dir, file_format="array_record")
    with contextlib.redirect_stdout(io.StringIO()):  # prints that it downloads
        builder.download_and_prepare(download_dir=scratch)


def _builder_class(dataset: str, splits: dict[str, Split]) -> Any:
    """Returns a builder like that of tensorflow-datasets, but without TensorFlow."""
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder):
        """Yields encoded PNG images, because the encoder of tensorflow-datasets needs TensorFlow."""

        name = dataset
        code_path = None  # skips the search for a list of downloads next to this module
        VERSION = tfds.core.Version(_VERSIONS[dataset])

        def _info(self) -> tfds.core.DatasetInfo:
            features = {
                "image": tfds.features.Image(shape=splits["train"].images.shape[1:]),
                "label": tfds.features.ClassLabel(names=CLASSES[dataset]),
            }
            if dataset == "cifar10":
                features["id"] = tfds.features.Text()
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager: object) -> dict[str, Any]:
            return {key: self._generate_examples(key) for key in splits}

        def _generate_examples(self, key: str) -> Iterator[tuple[int, dict]]:
            for index, (image, label) in enumerate(zip(splits[key].images, splits[key].labels, strict=True)):
                example = {"image": _png(image), "label": int(label)}
                if dataset == "cifar10":
                    example["id"] = f"{key}_{index:05d}"
                yield index, example

    return Builder


def _png(image: Any) -> io.BytesIO:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "png")
    buffer.seek(0)
    return buffer


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses the command line, including the program's name."""
    form = argparse.RawDescriptionHelpFormatter
    parser = cli.ArgumentParser("python -m cnnjax.data.prepare", description=__doc__, formatter_class=form)
    parser.add_argument("name", help=", ".join(PUBLISHED))
    parser.add_argument("--data_dir", type=Path, default=data_folder(), help="where to write (default: %(default)s)")
    parser.add_argument("--archive_dir", type=Path, help="a folder with the archives (default: they are downloaded)")
    return parser.parse_args(argv[1:])


def main(options: argparse.Namespace) -> None:
    """Prepares a data set, and prints its folder."""
    archives = options.archive_dir and expanded("--archive_dir", options.archive_dir)
    print(prepare(options.name, expanded("--data_dir", options.data_dir), archives))


if __name__ == "__main__":
    cli.run(main, parse)
