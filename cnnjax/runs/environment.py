"""Describes the machine and the software of a run, to explain why two runs differ. Imports no jax."""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("cnnjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "pillow")


def describe_environment(devices: Mapping[str, Any]) -> dict[str, Any]:
    """Returns environment.json.

    Args:
        devices: jax's devices and options.
    """
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cpu_count": os.cpu_count(),
        "cpus_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        **devices,
        "versions": {name: _version(name) for name in _PACKAGES},
        "flags": {name: v for name, v in sorted(os.environ.items()) if name.startswith(("XLA_", "JAX_", "TF_CUDNN_"))},
        "git_revision": _git_revision(),
    }


def code_versions() -> dict[str, str]:
    """Returns what must agree in all processes of a study: package versions, and a hash of cnnjax's source."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted([*package.rglob("*.py"), *package.rglob("*.[ch]")]):
        digest.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    versions = {name: metadata.version(name) for name in ("cnnjax", "jax", "jaxlib", "orbax-checkpoint")}
    return {**versions, "cnnjax source": digest.hexdigest()[:12]}


def comparable(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entries of an environment that can change results: not the command and not earlier environments."""
    return {key: value for key, value in environment.items() if key not in ("command", "earlier", "tasks")}


def processor() -> str:
    """Returns the model of the CPU, on which the order of summation depends."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """Returns the git revision of this package's checkout, with '-dirty' if changed; None without a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
