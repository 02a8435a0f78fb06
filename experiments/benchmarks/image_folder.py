"""How long reading a folder of image files takes, and how much memory: at the first start, and at the second.

    python -m experiments.benchmarks.image_folder

Writes Fashion-MNIST of CNNJAX_FASHION_MNIST as 70,000 PNG files of 28x28 pixels into a temporary folder, or takes those
of an earlier call (`--folder`). Each start is a process of its own, with the data cache of the start before it. The
seconds begin after the imports, and end when the data is split and hashed, as a study has it. The memory is the peak of
the process without what it takes before reading, also as a multiple of the images' bytes. Writes image_folder.csv
beside this file.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from absl import app, flags

from cnnjax.data import load
from cnnjax.study.schema import DataConfig
from experiments.benchmarks.tables import write_table

FOLDER = flags.DEFINE_string("folder", None, "A folder of images, written if it does not exist (default: temporary).")
STARTS = flags.DEFINE_integer("starts", 3, "Starts, the first of them with an empty data cache.")
OUTPUT = flags.DEFINE_string("output", None, "Where to write the table (default: beside this file).")
READ = flags.DEFINE_bool("read", False, "Only read the folder, and print seconds, bytes of memory and of images.")


def main(_: list[str]) -> None:
    """Measures the starts and writes the table, or reads the folder once."""
    if READ.value:
        print(*read(str(FOLDER.value)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(FOLDER.value or f"{temporary}/images")
        if not folder.exists():
            write_images(folder)
        rows = []
        for start in range(1, STARTS.value + 1):
            command = [sys.executable, "-m", "experiments.benchmarks.image_folder", "--read", f"--folder={folder}"]
            environment = os.environ | {"CNNJAX_CACHE": f"{temporary}/cache"}
            result = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            seconds, memory, images = map(float, result.stdout.split())
            row = {"start": start, "seconds": round(seconds, 2), "images_mb": round(images / 1e6, 1)}
            rows.append(row | {"memory_mb": round(memory / 1e6, 1), "memory_of_images": round(memory / images, 2)})
            print(rows[-1], flush=True)
        print(f"wrote {write_table(rows, 'image_folder.csv', OUTPUT.value)}")


def read(folder: str) -> tuple[float, int, int]:
    """Reads the folder as a study does. Returns the seconds, the peak of memory, and the bytes of the images."""
    before, start = psutil.Process().memory_info().rss, time.perf_counter()
    dataset = load.load_dataset(DataConfig(path=folder), identify=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return seconds, peak - before, sum(split.images.nbytes for split in dataset.splits.values())


def write_images(folder: Path) -> None:
    """Writes Fashion-MNIST as PNG files, one folder per split and class."""
    from PIL import Image

    _, source = load.load_source(DataConfig(path=os.environ["CNNJAX_FASHION_MNIST"]))
    for name, split in source.splits.items():
        for label in range(len(source.classes)):
            (folder / name / str(label)).mkdir(parents=True)
        for index, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            Image.fromarray(image[..., 0]).save(folder / name / str(label) / f"{index:05d}.png")


if __name__ == "__main__":
    app.run(main)
