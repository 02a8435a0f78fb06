"""Feeds every parser with damaged and made-up input: nothing but a clean refusal may come out, and soon.

    python -m tests.campaigns.fuzz --cases=100000
    python -m tests.campaigns.fuzz --cases=10000 --only=overrides

A case is a valid input with a few bytes changed, cut, moved or repeated, with numbers of headers set to what misleads,
or with a piece of another input in it. Allowed outcomes: a result, or a RequestError of one line, within ten seconds
and within the memory that the process may take.
"""

import argparse
import gzip
import io
import json
import os
import pickle
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cnnjax.data.readers.cifar import read_cifar
from cnnjax.data.readers.csv import read_labeled_rows, read_unlabeled_rows
from cnnjax.data.readers.detect import read_path
from cnnjax.data.readers.idx import read_idx
from cnnjax.data.readers.image_files import decode_image
from cnnjax.data.readers.npy import read_npy
from cnnjax.data.readers.npz import read_npz, read_npz_images
from cnnjax.data.readers.safe_pickle import read_pickle
from cnnjax.runs import integrity
from cnnjax.study.overrides import load_study
from cnnjax.study.plan import make_plan
from cnnjax.study.schema import DataConfig, StreamsConfig, Study, TrainConfig
from cnnjax.training.stacking import stack_members, table_size
from cnnjax.utils.errors import RequestError

ROOT = Path(__file__).parents[2]
SECONDS = 10
MEMORY = 8 << 30
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1)
WORDS = (
    b"-1",
    b"999999999999999999999",
    b"1e400",
    b"nan",
    b"\x00" * 9,
    b"\xff" * 9,
    b'"',
    b",",
    b"\n",
    b"\r\n",
    b"../",
)


def mutate(rng: random.Random, seeds: list[bytes]) -> bytes:
    """Returns a damaged copy of one of the seeds."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(8)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + rng.randrange(1, 9)]
        elif kind == 4:
            data[at:at] = data[at : at + rng.randrange(1, 33)]
        elif kind == 5:
            form = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
            number = rng.choice(NUMBERS) % (1 << 8 * struct.calcsize(form))
            data[at : at + struct.calcsize(form)] = struct.pack(form, number)
        elif kind == 6:
            data[at : at + rng.randrange(4)] = rng.choice(WORDS)
        else:
            other = rng.choice(seeds)
            start = rng.randrange(len(other) + 1)
            data[at : at + rng.randrange(9)] = other[start : start + rng.randrange(1, 65)]
    return bytes(data)


def _saved(save: Callable, *arguments: object, **named: object) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arguments, **named)
    return buffer.getvalue()


IMAGES = np.random.default_rng(0).integers(0, 256, (3, 4, 4), np.uint8)
LABELS = np.array([0, 1, 1])


def npy_seeds() -> list[bytes]:
    arrays = [IMAGES, IMAGES.reshape(3, 16), IMAGES[..., None], np.asfortranarray(IMAGES)]
    versions = [_saved(np.lib.format.write_array, IMAGES, version=(version, 0)) for version in (2, 3)]
    return [*(_saved(np.save, array) for array in arrays), *versions]


def npz_seeds() -> list[bytes]:
    pairs = {"x_train": IMAGES, "y_train": LABELS}
    return [
        _saved(np.savez, images=IMAGES, labels=LABELS),
        _saved(np.savez_compressed, **pairs, x_test=IMAGES, y_test=LABELS),
        _saved(np.savez_compressed, logits=IMAGES.astype(np.float16)),
    ]


def idx_seeds() -> list[bytes]:
    plain = struct.pack(">IIII", 0x803, *IMAGES.shape) + IMAGES.tobytes()
    return [plain, gzip.compress(plain, mtime=0), gzip.compress(plain * 50, mtime=0)]


def csv_seeds() -> list[bytes]:
    rows = [",".join(map(str, [label, *image.ravel()])) for label, image in zip(LABELS, IMAGES, strict=True)]
    texts = [
        "\n".join([f"{key}," + ",".join(f"pix{number}" for number in range(1, 17)), *rows]).encode() + b"\n"
        for key in ("label", "ID")
    ]
    return [*texts, texts[0].replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + texts[0], gzip.compress(texts[0], mtime=0)]


def pickle_seeds() -> list[bytes]:
    rows = np.zeros((2, 3072), np.uint8)
    small = {"data": np.zeros((2, 6), np.uint8), "labels": [0, 1], "names": [b"a", "b"], "more": {"x": (1, 2.5, None)}}
    batches = ({b"data": rows, b"labels": [0, 1]}, small)
    return [pickle.dumps(batch, protocol) for batch in batches for protocol in (0, 2, 4, 5)]


def picture_seeds() -> list[bytes]:
    from PIL import Image

    gray, colors = Image.fromarray(IMAGES[0]), Image.fromarray(np.repeat(IMAGES[0, ..., None], 3, -1))
    forms = [(gray, "png"), (colors, "png"), (colors.convert("P"), "png"), (colors.convert("RGBA"), "png")]
    forms += [(colors, "jpeg"), (colors, "bmp"), (colors, "gif"), (colors, "ppm"), (colors, "tiff")]
    forms += [(colors, "webp"), (Image.fromarray(IMAGES[0].astype(np.uint16)), "png")]
    return [_saved(image.save, form) for image, form in forms]


def run_seeds() -> list[bytes]:
    lines = [integrity.add_checksum({"member": "t0000", "epoch": epoch, "train_loss": 1.5}) for epoch in range(3)]
    row = integrity.add_checksum({"trial": "t0000", "member": "t0000", "train_loss": "0.25"})
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    rows = ("\n".join([",".join(row), ",".join(row.values())]) + "\n").encode()
    return [
        text,
        rows,
        json.dumps(integrity.add_checksum({"seeds": [0, 1], "data": {"name": "digits"}})).encode(),
        *npz_seeds(),
    ]


def override_seeds() -> list[bytes]:
    keys = [f"{group}.{name}" for group, cls in GROUPS.items() for name in cls.__dataclass_fields__]
    keys += list(Study.__dataclass_fields__)
    values = ("0.1", "1,2", "", "None", "True", "'a'", "(1,2)", "[[1]]", "{'a': 1}", "val_loss:3", "cosine", "1e999")
    values += ("piecewise:2=0.1/3=0.01", "warmup:2", "-1", "nan", "0x10", "({'optimizer': 'adam'},)", "flip,crop")
    values += (",".join(map(str, range(1, 400))), "1000000000000", "3.4e38", "1e-320")
    pairs = [f"{key}={value}" for key in keys for value in values]
    return [*(pair.encode() for pair in pairs), *("\n--config.".join(pairs[i::97]).encode() for i in range(97))]


GROUPS = {"data": DataConfig, "train": TrainConfig, "streams": StreamsConfig}


def _read_file(read: Callable[[Path], object], suffix: str) -> Callable[[bytes, Path], object]:
    def run(data: bytes, folder: Path) -> object:
        path = folder / f"input{suffix}"
        path.write_bytes(data)
        return read(path)

    return run


def _read_csv(path: Path) -> None:
    for read in (read_labeled_rows, read_unlabeled_rows):
        try:
            read(path)
        except RequestError as error:
            refused = error
    raise refused


def _read_cifar(data: bytes, folder: Path) -> object:
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        (folder / name).write_bytes(data)
    return read_cifar(folder)


def _read_run(path: Path) -> None:
    integrity.read_lines(path)
    integrity.read_rows(path)
    for read in (integrity.read_json, lambda path: integrity.read_array(path, "logits", (None,) * 3)):
        try:
            read(path)
        except RequestError as error:
            refused = error
    raise refused


def _override(data: bytes, _: Path) -> None:
    text = data.decode("utf-8", "replace")
    study = load_study(str(ROOT / "configs/quickstart.py"), text.split("\n--config."))
    program = make_plan(study).programs[0]
    tables = table_size((stage for member in program.members for stage in member.trials[-1].stages), steps=7)
    stack_members(program.members[:2], tables, "val_accuracy", study.split_seeds)


# Parser: what makes valid inputs, and what reads one.
PARSERS: dict[str, tuple[Callable[[], list[bytes]], Callable[[bytes, Path], object]]] = {
    "npy": (npy_seeds, _read_file(lambda path: np.array(read_npy(path)), ".npy")),
    "npz": (npz_seeds, _read_file(read_npz, ".npz")),
    "npz images": (npz_seeds, _read_file(read_npz_images, ".npz")),
    "idx": (idx_seeds, _read_file(lambda path: read_idx(path, 3), "")),
    "idx.gz": (idx_seeds, _read_file(lambda path: read_idx(path, 3), ".gz")),
    "csv": (csv_seeds, _read_file(_read_csv, ".csv")),
    "csv.gz": (csv_seeds, _read_file(_read_csv, ".csv.gz")),
    "csv path": (csv_seeds, _read_file(lambda path: read_path(str(path), "cifar10"), ".csv")),
    "pickle": (pickle_seeds, _read_file(read_pickle, "")),
    "cifar": (lambda: [bytes([1]) + bytes(3072), (bytes([9]) + bytes(3072)) * 2], _read_cifar),
    "picture": (picture_seeds, _read_file(decode_image, ".png")),
    "run": (run_seeds, _read_file(_read_run, "")),
    "overrides": (override_seeds, _override),
}


class TooSlow(BaseException):
    """A case took longer than it may."""


def _late(*_: object) -> None:
    raise TooSlow


def fuzz(parser: str, cases: int, seed: int = 0) -> Iterator[tuple[bytes, BaseException]]:
    """Yields each input that was not refused cleanly, and what came out."""
    make, read = PARSERS[parser]
    seeds, rng = make(), random.Random(seed)
    signal.signal(signal.SIGPROF, _late)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:  # noqa: PTH112
        for _ in range(cases):
            data = mutate(rng, seeds)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read(data, Path(folder))
            except RequestError as error:
                if "\n" in str(error):
                    yield data, error
            except (Exception, TooSlow) as error:
                yield data, error
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="for each parser")
    parser.add_argument("--only", choices=sorted(PARSERS), action="append")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    faults = 0
    for name in options.only or PARSERS:
        start, kinds = time.monotonic(), set()
        for data, error in fuzz(name, options.cases, options.seed):
            faults += 1
            kind = f"{type(error).__name__}: {str(error)[:60]}"
            if kind not in kinds and len(kinds) < 10:
                kinds.add(kind)
                print(f"{name}: {kind!r} for {data[:300]!r}", flush=True)
        print(
            f"{name}: {options.cases} cases in {time.monotonic() - start:.0f} s, {len(kinds)} kinds of faults",
            flush=True,
        )
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
