"""Packs what a GPU machine without a network lacks: wheels of our dependencies, and CIFAR-10 as one file in parts.

    python -m experiments.benchmarks.pack_for_gpu --python=3.12 --output=packed

Wheels: of what cnnjax needs, without what comes with the packages that are there already (`--have`). CIFAR-10, as it is
prepared here (`python -m cnnjax.data.prepare cifar10`): one .npz file of uint8 images [N, 32, 32, 3], 184 MB, in parts
of at most `--part_mb`. There: `pip install --no-index --no-deps packed/*.whl` and `cat packed/cifar10.npz.* >
cifar10.npz`, which data.path takes.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cnnjax.data.load import load_source
from cnnjax.study.schema import DataConfig

_HAVE = (
    *("jax", "flax", "optax", "orbax-checkpoint", "matplotlib", "pandas", "pillow", "psutil", "pyarrow", "rich"),
    *("scikit-learn", "jaxtyping", "absl-py", "torch", "requests", "tqdm", "wrapt"),
)
_PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17)),
    *("manylinux2014_x86_64", "manylinux1_x86_64"),
)


def main() -> None:
    """Writes the wheels and the parts, and prints what they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--have", nargs="+", default=_HAVE, help="what is there; with each package what it needs")
    parser.add_argument("--python", default="3.12", help="the Python version there")
    parser.add_argument("--platforms", nargs="+", default=_PLATFORMS, help="whose wheels are usable there")
    parser.add_argument("--part_mb", type=int, default=60, help="size of a part of CIFAR-10, million bytes")
    parser.add_argument("--output", type=Path, default=Path("packed"), help="the folder to write")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    there = closure(given.have)
    for name, version in closure(["cnnjax"]).items():
        if name not in there and name != "cnnjax":
            print(f"collecting {name} {version}", flush=True)
            collect(f"{name}=={version}", given.output, given.python, given.platforms)
    for path in write_parts(read_cifar10(), given.output, given.part_mb * 10**6):
        print(f"wrote {path}, {path.stat().st_size / 1e6:.1f} MB", flush=True)


def closure(names: Iterable[str]) -> dict[str, str]:
    """Returns the installed version of each package named, and of each that they need, by its normal name."""
    found: dict[str, str] = {}
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # torch, say, which this machine can do without
            continue
        found[name] = package.version
        needed = map(Requirement, package.requires or [])
        waiting += [
            canonicalize_name(one.name) for one in needed if not one.marker or one.marker.evaluate({"extra": ""})
        ]
    return found


def collect(requirement: str, folder: Path, python: str, platforms: Iterable[str]) -> None:
    """Downloads a wheel for the machine that it is packed for; one that has none is pure Python, and built here."""
    pip = [sys.executable, "-m", "pip"]
    where = [f"--python-version={python}", *(f"--platform={platform}" for platform in platforms)]
    download = ["download", "--no-deps", "--quiet", "--only-binary=:all:", f"--dest={folder}", *where, requirement]
    if subprocess.run([*pip, *download], check=False, stderr=subprocess.DEVNULL).returncode:
        subprocess.run([*pip, "wheel", "--no-deps", "--quiet", f"--wheel-dir={folder}", requirement], check=True)


def read_cifar10() -> dict[str, Any]:
    """Returns the prepared images and labels by the names that an .npz file has."""
    _, source = load_source(DataConfig(name="cifar10"))
    arrays: dict[str, Any] = {}
    for name, split in (("train", source.train), ("test", source.test)):
        assert split is not None
        arrays |= {f"x_{name}": split.images, f"y_{name}": split.labels.astype(np.uint8)}
    return arrays


def write_parts(arrays: dict[str, Any], folder: Path, size: int) -> Iterator[Path]:
    """Writes cifar10.npz.0, .1, ... of at most `size` bytes, which joined are one .npz file; yields their paths."""
    with tempfile.TemporaryFile() as whole:
        np.savez(whole, **arrays)
        whole.seek(0)
        for number in itertools.count():
            if not (piece := whole.read(size)):
                return
            path = folder / f"cifar10.npz.{number}"
            path.write_bytes(piece)
            yield path


if __name__ == "__main__":
    main()
