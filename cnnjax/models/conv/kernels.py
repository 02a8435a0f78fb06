"""3x3 convolution by our own kernels in C, for CPUs: Winograd's method in one pass through the caches.

kernels.c transforms a block of tiles, multiplies it and transforms it back before the next block. It is compiled at the
first use by clang, which the package `ziglang` brings along, for the processor of this machine, and kept in the user's
cache folder. XLA calls it as a custom call.

Tiles are 4x4 pixels (F(4,3)), or 2x2 (F(2,3)) where these need fewer products. The rounding errors of F(4,3) are up to
five times those of a direct convolution in float32, see `python -m experiments.benchmarks.fused_winograd`.
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
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Float

from cnnjax.models.conv.blocks import Pair
from cnnjax.models.conv.windows import PLAIN, Window
from cnnjax.utils.errors import RequestError
from cnnjax.utils.paths import cache_folder
from cnnjax.utils.progress import announced

SOURCE = Path(__file__).with_suffix(".c")
_COMPILER = "ziglang"
PROCESSOR = "native"  # what the compiler calls the processor of this machine
_FLAGS = ("-O3", "-shared", "-fPIC", "-fvisibility=hidden")
TILES = (2, 4)  # pixels; that with the fewest products is taken
_LANES = 16  # channels that the kernels take at once
_HANDLERS = ("winograd_forward", "winograd_kernel_grad")
_LOCK = threading.Lock()


def fits(kernel_shape: tuple[int, ...], window: Window, dtype: np.dtype) -> bool:
    """Returns whether the kernels compute such a convolution."""
    *size, channels, features = kernel_shape
    is_plain = size == [3, 3] and window == PLAIN and dtype == np.float32
    return is_plain and channels % _LANES == 0 and features % _LANES == 0


def forward(
    images: Float[Array, "N H W C"],
    kernel: Float[Array, "3 3 C F"],
    before: Pair,
    size: Pair,
    *,
    turned: bool = False,
) -> Float[Array, "N P Q F"]:
    """Returns `size` output pixels of images with `before` zeros above and left.

    Args:
        images: the images.
        kernel: the kernel; if `turned`, it is turned by 180 degrees, and its channels and features are swapped.
        before: zeros above and left of the images.
        size: height and width of the output.
        turned: whether to turn the kernel.
    """
    (batch, *_, channels), features = images.shape, kernel.shape[2 if turned else 3]
    return _call("winograd_forward", (batch, *size, features), images, kernel, before, size, channels, turned)


def image_grad(
    grad: Float[Array, "N P Q F"], kernel: Float[Array, "3 3 C F"], before: Pair, size: Pair
) -> Float[Array, "N H W C"]:
    """Returns the gradient of images of `size`, with `before` zeros above and left, from that of the output."""
    return forward(grad, kernel, (2 - before[0], 2 - before[1]), size, turned=True)


def kernel_grad(
    images: Float[Array, "N H W C"],
    grad: Float[Array, "N P Q F"],
    before: Pair,
    kernel_shape: tuple[int, ...],
) -> Float[Array, "3 3 C F"]:
    """Returns the gradient of a kernel from the gradient of the output."""
    size = grad.shape[1], grad.shape[2]
    return _call("winograd_kernel_grad", kernel_shape, images, grad, before, size, images.shape[-1])


def _call(
    name: str,
    shape: tuple[int, ...],
    first: Array,
    second: Array,
    before: Pair,
    size: Pair,
    channels: int,
    turned: bool | None = None,
) -> Array:
    """Returns the result of a handler of kernels.c, for `size` pixels of the output."""
    tile = min(TILES, key=lambda m: -(-size[0] // m) * -(-size[1] // m) * (m + 2) ** 2)
    floats = load().winograd_floats(tile, channels, shape[-1], turned is None)
    results = [jax.ShapeDtypeStruct(shape, np.float32), jax.ShapeDtypeStruct((floats,), np.float32)]
    arguments = {"above": before[0], "left": before[1], "m": tile} | ({} if turned is None else {"turned": turned})
    call = jax.ffi.ffi_call(f"cnnjax_{name}", results, vmap_method="sequential")
    return call(first, second, **{key: np.int64(value) for key, value in arguments.items()})[0]


def load() -> ctypes.CDLL:
    """Returns the library of the kernels, compiled unless the cache folder has it, and registers its calls with XLA.

    Raises:
        RequestError: the compiler is missing, or fails.
    """
    with _LOCK:  # programs are traced in several threads
        return _load()


@functools.cache
def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(str(build(cache_folder() / "kernels")))
    library.winograd_floats.restype = ctypes.c_int64
    library.winograd_floats.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_int]
    for name in _HANDLERS:
        jax.ffi.register_ffi_target(f"cnnjax_{name}", jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return library


def build(folder: Path) -> Path:
    """Returns the path of the library in a folder, after compiling it if it is not there.

    Args:
        folder: the folder. Several processes may build in it at once.

    Raises:
        RequestError: the compiler is missing, or fails.
    """
    flags = [*_FLAGS, f"-mcpu={PROCESSOR}"]
    versions = [importlib.metadata.version(name) for name in (_COMPILER, "jaxlib")]
    identity = "\n".join([*flags, *versions, _processor_features(), SOURCE.read_text(encoding="utf-8")])
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


def _processor_features() -> str:
    """Returns the kind of processor and its instructions, which compiled code depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    features = {line for line in lines if line.startswith(("flags", "Features", "model name"))}
    return "\n".join([platform.platform(), platform.machine(), platform.processor(), *sorted(features)])
