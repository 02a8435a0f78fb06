"""The flags `--config=path[:argument]` and `--workdir`, and the study and the folder that they name."""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from cnnjax.study.overrides import config_name, load_study
from cnnjax.study.schema import Study
from cnnjax.utils.errors import RequestError

CONFIG = flags.DEFINE_string("config", None, "The study: path of a config file, or path:argument.")

WORKDIR = flags.DEFINE_string(
    "workdir", None, "The folder of the run (default: runs/<config>), or its URL, as in s3://BUCKET/runs/grid."
)


def requested_study(overrides: Sequence[str]) -> Study:
    """Returns the study of the flag --config, with `key=value` overrides.

    Raises:
        RequestError: the flag is missing, or `load_study` raises it.
    """
    if not CONFIG.value:
        raise RequestError("--config", CONFIG.value, "the flag is required; use --config=configs/quickstart.py")
    return load_study(CONFIG.value, overrides)


def default_folder(parent: str) -> Path:
    """Returns parent/grid for --config=configs/grid.py, and parent/grid-smoke for --config=configs/grid.py:smoke."""
    assert CONFIG.value  # `requested_study` has checked it
    return Path(parent) / config_name(CONFIG.value)
