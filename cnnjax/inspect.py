"""Shows the data and the models of a study before training.

    python -m cnnjax.inspect --config=configs/grid.py
    python -m cnnjax.inspect --workdir=runs/grid
    python -m cnnjax.inspect --config=configs/grid.py:smoke --config.data.image_size=16 --output=somewhere

Prints the splits, classes and pixel statistics of the data, and the layers of each model with their
shapes, parameters, FLOPs and memory. Writes them to a page, with figures of the data.
Override any key of the config with --config.key=value, as in cnnjax.launch.
"""

from pathlib import Path

from absl import flags

from cnnjax.runs.run_dir import RunFolder
from cnnjax.study import flags as study_flags
from cnnjax.study.overrides import overridden
from cnnjax.utils import cli
from cnnjax.utils.errors import RequestError
from cnnjax.utils.paths import expanded

flags.adopt_module_key_flags(study_flags)
OUTPUT = flags.DEFINE_string("output", None, "Folder for the page and its files (default: inspect/<config>).")


def main(config_overrides: list[str]) -> None:
    """Inspects the study of the flags and prints the description.

    Args:
        config_overrides: config overrides, each `key=value`.

    Raises:
        RequestError: a flag, the config or an override is invalid.
    """
    if study_flags.WORKDIR.value and not study_flags.CONFIG.value:
        run = RunFolder(expanded("--workdir", study_flags.WORKDIR.value))
        if (config := run.read_config()) is None:
            raise RequestError("--workdir", str(run.path), "must be a run's folder (with config.json)")
        study, folder = overridden(config, config_overrides), Path("inspect") / run.path.resolve().name
        run.check_networks(study.models)
    else:
        study, folder = study_flags.requested_study(config_overrides), study_flags.default_folder("inspect")
    folder = expanded("--output", OUTPUT.value) if OUTPUT.value else folder

    from cnnjax.commands import inspect  # imports jax: check the request first

    print(inspect.inspect_study(study, folder))


if __name__ == "__main__":
    cli.run(main)
