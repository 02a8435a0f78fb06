"""3x3 convolution by our own kernels in C, for CPUs: Winograd's method in one pass through the caches.

The kernels, in the folder `c`, transform a block of tiles, multiply it and transform it back before the next block.
They are compiled at the first use by clang, which the package `ziglang` brings along, for the processor of this
machine, and kept in the user's cache folder. XLA calls them as custom calls.

Tiles are 4x4 pixels (F(4,3)), or 2x2 (F(2,3)) where these take less time. Convolutions of up to four channels are
direct. Bias, ReLU and 2x2 max-pool behind a convolution are part of the pass. The rounding errors of F(4,3) are two to
four times those of a direct convolution in float32, see `python -m experiments.benchmarks.fused_winograd`.
"""

import ctypes
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Float, Int8

from cnnjax.models.conv import shifts
from cnnjax.models.conv.blocks import Pair, join, to_winner
from cnnjax.models.conv.windows import PLAIN, Window
from cnnjax.models.ladder import check_convolution
from cnnjax.utils.errors import RequestError
from cnnjax.utils.paths import cache_folder
from cnnjax.utils.progress import announced

SOURCE = Path(__file__).parent / "c" / "handlers.c"
_COMPILER = "ziglang"
PROCESSOR = "native"  # what the compiler calls the processor of this machine
_FLAGS = ("-O3", "-shared", "-fPIC", "-fvisibility=hidden", "-g0", "-rtlib=none")  # a runtime library takes 3 s
TILES = (2, 4)  # pixels; the faster one is taken
_LANES = 16  # channels that the kernels take at once
_FEW = 4  # channels of direct convolutions
_KERNEL_TILES = 200  # whose products take as long as what is done once for a kernel (measured with 512 channels)
_LEAST_TILES = 48  # for each thread
_FORWARD, _KERNEL_GRAD = "winograd_forward", "winograd_kernel_grad"
_LOCK = threading.Lock()


def fits(kernel_shape: tuple[int, ...], window: Window, dtype: np.dtype) -> bool:
    """Returns whether the kernels compute such a convolution."""
    *size, channels, features = kernel_shape
    is_plain = size == [3, 3] and window == PLAIN and dtype == np.float32
    return is_plain and (channels <= _FEW or channels % _LANES == 0) and features % _LANES == 0


def forward(
    images: Float[Array, "N H W C"], kernel: Float[Array, "3 3 C F"], before: Pair, size: Pair
) -> Float[Array, "N P Q F"]:
    """Returns `size` output pixels of images with `before` zeros above and left."""
    output = jax.ShapeDtypeStruct((len(images), *size, kernel.shape[-1]), np.float32)
    return _call(_FORWARD, (images, kernel), [output], before, size, kernel.shape[2:], turned=False)[0]


def forward_and_pool(
    images: Float[Array, "N H W C"], kernel: Float[Array, "3 3 C F"], bias: Float[Array, " F"], before: Pair, size: Pair
) -> tuple[Float[Array, "N R S F"], Int8[Array, "N R S F"]]:
    """Returns `blocks.largest_positive` of `size` output pixels, an even number of rows and columns."""
    shape = len(images), size[0] // 2, size[1] // 2, kernel.shape[-1]
    results = [jax.ShapeDtypeStruct(shape, dtype) for dtype in (np.float32, np.int8)]
    pooled, winner, _ = _call(_FORWARD, (images, kernel, bias), results, before, size, kernel.shape[2:], turned=False)
    return pooled, winner


def image_grad(
    grad: Float[Array, "N P Q F"],
    kernel: Float[Array, "3 3 C F"],
    before: Pair,
    size: Pair,
    winner: Int8[Array, "N P Q F"] | None = None,
) -> Float[Array, "N H W C"]:
    """Returns the gradient of images of `size`, with `before` zeros above and left, from that of the output.

    `winner`, from `forward_and_pool`, is needed if the output was pooled.
    """
    if kernel.shape[2] <= _FEW:  # images of a data set, whose gradient nobody asks for
        whole = grad if winner is None else join(to_winner(grad, winner))
        return shifts.image_grad(whole, kernel, before, size)
    arrays = (grad, kernel) if winner is None else (grad, kernel, winner)
    images = jax.ShapeDtypeStruct((len(grad), *size, kernel.shape[2]), np.float32)
    around, channels = (2 - before[0], 2 - before[1]), kernel.shape[:1:-1]
    return _call(_FORWARD, arrays, [images], around, size, channels, turned=True)[0]


def kernel_grad(
    images: Float[Array, "N H W C"],
    grad: Float[Array, "N P Q F"],
    before: Pair,
    kernel_shape: tuple[int, ...],
    winner: Int8[Array, "N P Q F"] | None = None,
) -> Float[Array, "3 3 C F"]:
    """Returns the gradient of a kernel from that of the output; `winner` as in `image_grad`."""
    (_, rows, columns, _), times = grad.shape, 1 if winner is None else 2
    arrays = (images, grad) if winner is None else (images, grad, winner)
    kernel, size = jax.ShapeDtypeStruct(kernel_shape, np.float32), (rows * times, columns * times)
    return _call(_KERNEL_GRAD, arrays, [kernel], before, size, kernel_shape[2:])[0]


def _call(
    name: str,
    arrays: Sequence[Array],
    results: Sequence[jax.ShapeDtypeStruct],
    before: Pair,
    size: Pair,
    channels: Sequence[int],
    **attributes: int,
) -> Sequence[Array]:
    """Returns the results of a handler of handlers.c, and its scratch array.

    Args:
        name: of the handler.
        arrays: its arguments.
        results: its results.
        before: zeros above and left of the images.
        size: of the output, before it is pooled.
        channels: of the images and of the output.
        attributes: further ones of the handler.
    """

    def tiles(tile: int) -> int:
        return len(arrays[0]) * -(-size[0] // tile) * -(-size[1] // tile)

    tile = 0 if channels[0] <= _FEW else min(TILES, key=lambda tile: (tiles(tile) + _KERNEL_TILES) * (tile + 2) ** 2)
    threads = _usable_cores() // jax.local_device_count()
    parts = max(1, min(threads, len(arrays[0]) if tile == 0 else tiles(tile) // _LEAST_TILES))
    floats = load().winograd_floats(tile, *size, *channels, parts, name == _KERNEL_GRAD)
    scratch = jax.ShapeDtypeStruct((floats,), np.float32)
    call = jax.ffi.ffi_call(f"cnnjax_{name}", [*results, scratch], vmap_method="sequential")
    attributes |= {"above": before[0], "left": before[1], "m": tile, "parts": parts}
    return call(*arrays, **{key: np.int64(value) for key, value in attributes.items()})


def _usable_cores() -> int:
    """Returns the size of XLA's thread pool: the number of cores that the process may use, unless it is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(os.environ.get("PJRT_NPROC") or cores)


def load() -> ctypes.CDLL:
    """Returns the library of the kernels, compiled unless the cache folder has it, and registers its calls with XLA.

    Raises:
        RequestError: the compiler is missing, or fails, or the cache folder cannot be written.
    """
    with _LOCK:  # programs are traced in several threads
        return _load()


@functools.cache
def _load() -> ctypes.CDLL:
    folder = cache_folder() / "kernels"
    try:
        library = ctypes.CDLL(str(build(folder)))
    except OSError as error:
        problem = (
            f"they cannot be compiled into {folder} ({error.strerror or error}); set CNNJAX_CACHE to another folder"
        )
        raise RequestError("train.convolution", "kernels", problem) from error
    library.winograd_floats.restype = ctypes.c_int64
    library.winograd_floats.argtypes = [ctypes.c_int, *[ctypes.c_int64] * 4, ctypes.c_int, ctypes.c_int]
    for name in (_FORWARD, _KERNEL_GRAD):
        jax.ffi.register_ffi_target(f"cnnjax_{name}", jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return library


def build(folder: Path) -> Path:
    """Returns the path of the library in a folder, after compiling it if it is not there.

    Args:
        folder: the folder. Several processes may build in it at once.

    Raises:
        RequestError: the compiler is missing, or fails.
    """
    check_convolution("kernels", "cpu")
    flags = [*_FLAGS, f"-mcpu={PROCESSOR}"]
    versions = [importlib.metadata.version(name) for name in (_COMPILER, "jaxlib")]
    identity = "\n".join([*flags, *versions, _processor_features(), *map(_read, sorted(SOURCE.parent.glob("*.[ch]")))])
    target = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place, announced("compiling the kernels of convolutions"):
        library = Path(place) / target.name
        command = [sys.executable, "-m", _COMPILER, "cc", *flags, f"-I{jax.ffi.include_dir()}", str(SOURCE)]
        caches = {f"ZIG_{name}_CACHE_DIR": str(Path(place) / name) for name in ("LOCAL", "GLOBAL")}
        done = subprocess.run(
            [*command, "-o", str(library)], env=os.environ | caches, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = " ".join(done.stderr.split())[-300:]
            raise RequestError("train.convolution", "kernels", f"they do not compile here ({said}); use auto")
        library.replace(target)  # another process sees all of the file, or none
    return target


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _processor_features() -> str:
    """Returns the kind of processor and its instructions, which compiled code depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    features = {line for line in lines if line.startswith(("flags", "Features", "model name"))}
    return "\n".join([platform.platform(), platform.machine(), platform.processor(), *sorted(features)])
