"""What a study of many trials costs beside its training: seconds and peak memory of every stage, without training.

    python -m experiments.benchmarks.size --trials=100,1000,10000

The studies are of configs/grid.py's kind: three models, two optimizers, two learning rates, two batch sizes and two
lengths of training, with as many seeds as make so many trials; with `--wide`, five seeds and as many learning rates.
Each stage runs in a process of its own: the plan; the records, written by the code that trains chunks of members, of
the sizes that it has on a CPU, with made-up metrics and predictions in place of training and no checkpoints; what the
same command does again before it says that all is finished; the statistics; a comparison of two models; the report.
Once, for any number of trials: reading CIFAR-10, and the checkpoint of a chunk of each model after an epoch.
Writes size.csv beside this file.
"""

import io
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from absl import app, flags

from cnnjax.models.network import build_network
from cnnjax.runs.run_dir import RunFolder, describe_plan
from cnnjax.study.metrics import EPOCH_MEASURES, METRICS
from cnnjax.study.plan import make_plan
from cnnjax.study.schema import Study, from_config
from experiments.benchmarks.tables import write_table

TRIALS = flags.DEFINE_list("trials", ["100", "1000", "10000"], "How many trials, about.")
WIDE = flags.DEFINE_bool("wide", False, "Five seeds and many learning rates, in place of many seeds.")
EXAMPLES = flags.DEFINE_integer("examples", 10_000, "Test images.")
STAGES_OF = flags.DEFINE_list("stages", [], "Which stages (default: all).")
OUTPUT = flags.DEFINE_string("output", None, "Where to write the table.")

TRAIN_EXAMPLES = 50_000
CHUNKS = {"baseline": 82, "medium": 6, "complex": 1}  # members that a CPU trains at a time
CLASSES = [f"class {index}" for index in range(10)]
SKILL = {"baseline": 0.62, "medium": 0.72, "complex": 0.76}


def make_study(trials: int, wide: bool) -> Study:
    """A study of the grid's kind, of about so many trials."""
    train = {"optimizer": ["adam", "sgd"], "learning_rate": [0.001, 0.01], "momentum": 0.9}
    train |= {"batch_size": [32, 64], "epochs": [5, 10]}
    seeds = max(2, round(trials / 48))
    if wide:
        seeds = 5
        train["learning_rate"] = np.geomspace(1e-4, 1e-1, max(2, round(trials / 120))).round(8).tolist()
    return from_config(
        {
            "models": list(SKILL),
            "seeds": [*range(seeds)],
            "select": "test_accuracy",
            "train": train,
            "data": {"validation": 0},
        }
    )


class MadeUp:
    """Takes the place of a population: results that look like those of training, without any."""

    every, keep, devices, traces = 1, 1, 1, 1
    skips_ended = True

    def __init__(self, model: str, labels: np.ndarray):

        self.compiled = {"compilations": 1, "chunk_members": [CHUNKS[model]], "memory_bytes": 0}
        self.config = SimpleNamespace(network=build_network(model, len(CLASSES)), metrics=METRICS)
        self.measures = EPOCH_MEASURES
        self._labels, self._skill = labels, SKILL[model]
        self._rng = np.random.default_rng(0)
        self._of_members = np.empty(0)

    def stack(self, members: list, size: int) -> tuple[Any, Any]:
        """As a population does; remembers how good each member will be."""
        from cnnjax.training.stacking import TableSize, stack_members

        luck = [np.random.default_rng(member.trials[-1].seed).normal(0, 0.008) for member in members]
        fast = [np.log10(member.trials[-1].stages[0].traced.learning_rate / 0.003) ** 2 for member in members]
        self._of_members = self._skill + np.array(luck) - 0.04 * np.array(fast)
        return stack_members(members, TableSize(10), "val_accuracy", (0,))

    def compile(self, *arguments: Any) -> int:
        """Compiles nothing."""
        return 0

    def abstract_state(self, *arguments: Any) -> None:
        """There is no state to be restored."""

    def init(self, hparams: Any, streams: Any) -> Any:
        """Members before their first epoch."""
        from cnnjax.training.train_state import TrainState

        zeros = np.zeros(len(self._of_members), int)
        return TrainState({}, {}, (), zeros, zeros, zeros, zeros, zeros, zeros, None)

    def advance(self, state: Any, hparams: Any, streams: Any, data: Any, epochs: int, some: Any = None) -> Any:
        """The next epochs."""
        from cnnjax.training.train_state import epoch_metrics

        done = state.epoch + epochs
        accuracy = (self._of_members * (1 - 0.4 * 0.7**done))[:, None] + self._rng.normal(0, 0.002, (len(done), epochs))
        unknown = np.full_like(accuracy, np.nan)
        seen = dict.fromkeys(self.measures, unknown)
        seen |= {"train_loss": 2.3 * (1 - accuracy), "train_accuracy": accuracy}
        stage = (done >= hparams.epochs[:, 0]).astype(int)
        return state._replace(epoch=done, stage=stage), epoch_metrics(METRICS)(**seen)

    def predict(self, state: Any, hparams: Any, streams: Any, data: Any) -> np.ndarray:
        """Test logits."""
        skill = self._of_members * (1 - 0.4 * 0.7**state.epoch)
        shape = (len(skill), len(self._labels), len(CLASSES))
        logits = self._rng.standard_normal(shape, dtype=np.float32)
        logits[:, np.arange(len(self._labels)), self._labels] += 4.2 * skill[:, None].astype(np.float32)
        return (logits - logits.max(axis=2, keepdims=True)).astype(np.float16)


class NoCheckpoints:
    """Takes the place of checkpoints: there are none."""

    def __init__(self, *arguments: Any):
        pass

    def restore(self, *arguments: Any) -> None:
        """Nothing."""

    def epochs(self) -> list[int]:
        """None."""
        return []

    def save(self, *arguments: Any) -> None:
        """Nowhere."""

    wait = close = keep_only = save


def plan(study: Study, workdir: Path) -> int:
    """The trials, the programs, and their description."""
    found = make_plan(study)
    workdir.mkdir()
    folder = RunFolder(workdir)
    folder.write_json("config.json", study.to_dict())
    counts = {"train": TRAIN_EXAMPLES, "validation": 0, "test": EXAMPLES.value}
    folder.write_json("data.json", {"name": "made up", "classes": CLASSES, "counts": counts})
    folder.write_json("environment.json", {"devices": ["none"]})
    folder.write_json("plan.json", describe_plan(found, [{"parameters": 0, "forward_flops": 0}] * len(found.programs)))
    return len(found.trials)


def records(study: Study, workdir: Path) -> int:
    """What the training of every chunk writes."""
    from rich.console import Console

    from cnnjax.training import checkpoints, loop, work
    from cnnjax.utils.progress import Progress

    labels = np.random.default_rng(1).integers(0, len(CLASSES), EXAMPLES.value).astype(np.int32)
    dataset: Any = SimpleNamespace(
        train=range(TRAIN_EXAMPLES),
        validation=range(TRAIN_EXAMPLES // 9),
        test=SimpleNamespace(labels=labels),
        test_labels={},
        train_size=lambda train_examples: TRAIN_EXAMPLES,
        image_shape=(32, 32, 3),
        classes=CLASSES,
    )
    folder, count = RunFolder(workdir), 0
    folder.write_predictions("labels", labels=labels)
    without = mock.patch.object(checkpoints, "Checkpoints", NoCheckpoints)
    with without, Progress(Console(file=io.StringIO())) as progress:
        for program in make_plan(study).programs:
            size = CHUNKS[program.static.model]
            population: Any = MadeUp(program.static.model, labels)
            folder.program(program.id).repair()
            for first in range(0, len(program.members), size):
                members = program.members[first : first + size]
                batch = work.MemberBatch(program.id, members, size, members)
                loop.run_members(folder, population, batch, dataset, None, progress)  # type: ignore[arg-type]
                count += 1
    return count


def resume(study: Study, workdir: Path) -> int:
    """Which trials are finished, by all that is written down of them."""
    folder = RunFolder(workdir)
    return sum(len(folder.program(program.id).finished(program.members)) for program in make_plan(study).programs)


def statistics(study: Study, workdir: Path) -> int:
    """The run read, its configurations ranked, its variance explained."""
    from cnnjax.analysis.evidence import weigh
    from cnnjax.analysis.read import read_run
    from cnnjax.report.sections.hyperparameters import explain

    run = read_run(workdir)
    weigh(run), explain(run)
    return len(run.configurations)


def compare(study: Study, workdir: Path) -> int:
    """The best configurations of two models held against each other."""
    from cnnjax.analysis.compare import FORMATS, compare_configurations, read_side

    a, b = (read_side(f"{workdir}:model={model}") for model in ("complex", "medium"))
    return len(FORMATS["text"](compare_configurations(a, b)))


def report(study: Study, workdir: Path) -> int:
    """The page with all its files, by the command of a user; returns the bytes of the page."""
    subprocess.run([sys.executable, "-m", "cnnjax.report", workdir], check=True, stdout=subprocess.DEVNULL)
    return (workdir / "report" / "index.html").stat().st_size


def data(study: Study, workdir: Path) -> int:
    """CIFAR-10 as prepared, read into memory."""
    from cnnjax.data import load_dataset

    return len(load_dataset(from_config({"data": {"name": "cifar10"}}).data).train)


def checkpoint(model: str) -> Callable[[Study, Path], int]:
    """The checkpoint of a chunk of one model after an epoch, a mean of ten."""

    def save(study: Study, workdir: Path) -> int:
        import jax

        from cnnjax.training.checkpoints import Checkpoints
        from cnnjax.training.devices import make_mesh
        from cnnjax.training.population import Population

        program = next(p for p in make_plan(study).programs if p.static.model == model)
        population = Population(study, program.static, (32, 32, 3), len(CLASSES), make_mesh(jax.local_devices()))
        hparams, streams = population.stack((program.members * CHUNKS[model])[: CHUNKS[model]])
        state = jax.block_until_ready(population.init(hparams, streams))
        saves = Checkpoints(workdir / model, 1, [_SAVES])
        saves.save(0, state, {})
        saves.wait()
        start = time.perf_counter()
        for epoch in range(1, _SAVES + 1):
            saves.save(epoch, state, {})
        saves.wait()
        _own_seconds.append((time.perf_counter() - start) / _SAVES)
        saves.close()
        return sum(file.stat().st_size for file in (workdir / model / str(_SAVES)).rglob("*") if file.is_file())

    return save


_SAVES = 10
_own_seconds: list[float] = []  # of a stage that measures but a part of itself
STAGES: dict[str, tuple[Callable[[Study, Path], int], str]] = {
    "plan": (plan, "trials"),
    "records": (records, "chunks"),
    "resume": (resume, "finished trials"),
    "statistics": (statistics, "configurations"),
    "compare": (compare, "letters"),
    "report": (report, "bytes of the page"),
    "data": (data, "training images"),
    **{f"checkpoint {model}": (checkpoint(model), f"bytes of {size} members") for model, size in CHUNKS.items()},
}
_ONCE = ("data", *(f"checkpoint {model}" for model in CHUNKS))  # whatever the number of trials


def measure(stage: str, arguments: list[str], trials: int, workdir: Path) -> tuple[float, float, int]:
    """Runs a stage; returns its seconds, the most memory that a process of it had in MB, and what it counted."""
    import cnnjax.training.checkpoints
    import cnnjax.training.loop  # noqa: F401  # imports are not what grows

    flags.FLAGS(arguments)
    study = make_study(trials, WIDE.value)
    start = time.perf_counter()
    counted = STAGES[stage][0](study, workdir)
    seconds = _own_seconds[0] if _own_seconds else time.perf_counter() - start
    who = resource.RUSAGE_CHILDREN if stage == "report" else resource.RUSAGE_SELF
    return seconds, resource.getrusage(who).ru_maxrss / 1024, counted


def main(argv: list[str]) -> None:
    """Measures every stage of every study."""
    rows = []
    arguments = [argv[0], f"--examples={EXAMPLES.value}", *(["--wide"] if WIDE.value else [])]
    for asked in map(int, TRIALS.value):
        study = make_study(asked, WIDE.value)
        trials = len(make_plan(study).trials)
        with tempfile.TemporaryDirectory() as folder:
            for stage, (_, what) in STAGES.items():
                if (stage in _ONCE and asked != int(TRIALS.value[-1])) or stage not in (STAGES_OF.value or STAGES):
                    continue
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    found = pool.apply(measure, (stage, arguments, asked, Path(folder) / "run"))
                row: dict[str, Any] = {"trials": trials, "seeds": len(study.seeds), "stage": stage}
                row |= {"seconds": round(found[0], 2), "peak_memory_mb": round(found[1])}
                row |= {"counted": found[2], "what": what}
                print("  ".join(map(str, row.values())), flush=True)
                rows.append(row)
    print(f"wrote {write_table(rows, 'size.csv', OUTPUT.value)}")


if __name__ == "__main__":
    app.run(main)
