"""Trains every trial of a study and reports what the evidence supports.

    python -m cnnjax.launch --config=configs/quickstart.py
    python -m cnnjax.launch --config=configs/grid.py:smoke --plan
    python -m cnnjax.launch --config=configs/grid.py --config.seeds=5,6 --config.data.augment=

Every setting of a config can be overridden as --config.key=value: a number, a word, None, True or
False; a comma list is a tuple, which in `models`, `seeds`, `train` and `streams` is an axis of the
grid; nothing is the empty tuple. The same command again resumes a study that was interrupted.
"""

from pathlib import Path

from absl import flags

from cnnjax import commands, overrides
from cnnjax.types import RequestError

CONFIG = flags.DEFINE_string("config", None, "The study: path[:argument] of a config file.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder (default: runs/<config>).")
PLAN = flags.DEFINE_bool("plan", False, "Say what would run, and train nothing.")
COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache", None, "Folder for compiled programs (default: the user's cache folder), or off."
)
PROFILE = flags.DEFINE_bool("profile", False, "Trace each program's second epoch into the run's folder.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace another study's run in the folder.")


def main(config_overrides: list[str]) -> None:
    """Launches the study that the flags name.

    Args:
        config_overrides: `key=value` each.

    Raises:
        RequestError: the flags, the config or an override is wrong.
    """
    if not CONFIG.value:
        raise RequestError("--config", CONFIG.value, "name a study: --config=configs/quickstart.py")
    study = overrides.load_study(CONFIG.value, config_overrides)

    from cnnjax import runner  # imports jax: a wrong request is answered before

    runner.enable_compilation_cache(COMPILATION_CACHE.value)
    if PLAN.value:
        print(runner.plan_table(study))
        return
    from cnnjax.progress import Progress

    workdir = Path(WORKDIR.value) if WORKDIR.value else default_workdir(CONFIG.value)
    with Progress() as progress:
        report = runner.run(study, workdir, progress=progress, overwrite=OVERWRITE.value, profile=PROFILE.value)
    print(report)


def default_workdir(config: str) -> Path:
    """Returns runs/grid for configs/grid.py and runs/grid-smoke for configs/grid.py:smoke."""
    path, argument = overrides.split_config(config)
    return Path("runs") / "-".join(filter(None, (path.stem, argument)))


if __name__ == "__main__":
    commands.run(main)
