"""Loads trained networks from the checkpoints of a run."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from cnnjax.data.normalization import affine_map
from cnnjax.models.ladder import check_convolution
from cnnjax.models.network import MATMUL, AnyNetwork, build_network, variable_shapes
from cnnjax.runs.integrity import read_json
from cnnjax.runs.run_dir import RunFolder
from cnnjax.study import own_code
from cnnjax.study.hparams import Static
from cnnjax.study.plan import make_plan
from cnnjax.study.schema import from_config
from cnnjax.study.trials import Trial
from cnnjax.training.augment.batch import gather_batch
from cnnjax.training.augment.test_time import averaged_logits
from cnnjax.training.checkpoints import read_variables, saved_epochs
from cnnjax.training.devices import pinned
from cnnjax.training.evaluate import EVALUATION_BATCH
from cnnjax.utils.errors import RequestError, nearest
from cnnjax.utils.text import completed


@dataclasses.dataclass(frozen=True)
class Trained:
    """The network of a trial, with the weights that its test metrics were measured with.

    `network.apply(variables, images * scale + shift, train=False)` returns the logits of images [N, H, W, C].

    Attributes:
        trial: the trial.
        network: the Flax module.
        variables: 'params', and 'batch_stats' where there is batch norm: nested dicts of numpy arrays.
        scale: float32 [C]; a pixel of 0..255 becomes `pixel * scale + shift`.
        shift: float32 [C].
        image_shape: (H, W, C) of the training images.
        classes: names of the classes, in the order of the logits.
        test_time_augment: of the study: the views of an image over which `logits` averages.
    """

    trial: Trial
    network: AnyNetwork
    variables: dict = dataclasses.field(repr=False)
    scale: np.ndarray = dataclasses.field(repr=False)
    shift: np.ndarray = dataclasses.field(repr=False)
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    test_time_augment: str = "none"

    def logits(
        self, images_NxHxWxC: UInt8[np.ndarray, "N H W C"], augment: str | None = None
    ) -> Float[np.ndarray, "N K"]:
        """Returns float32 logits of images with pixels of 0..255.

        Args:
            images_NxHxWxC: the images.
            augment: average the logits over views of each image, see `test_time.averaged_logits`. None does as the
                study did for its test images.

        Raises:
            RequestError: the images are not uint8 (0..1 would be black), or not of `image_shape`.
        """
        images = np.asarray(images_NxHxWxC)
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            allowed = f"must be uint8 [N, {', '.join(map(str, self.image_shape))}] with pixels of 0..255"
            raise RequestError("images", f"{images.dtype} {list(images.shape)}", allowed)
        kind = self.test_time_augment if augment is None else augment
        batches = [np.zeros((0, len(self.classes)), np.float32)]
        for start in range(0, len(images), EVALUATION_BATCH):
            batch = images[start : start + EVALUATION_BATCH]
            filled = np.zeros((EVALUATION_BATCH, *batch.shape[1:]), np.uint8)  # one batch size, one program
            filled[: len(batch)] = batch
            with pinned():
                logits = _logits(self.network, kind, self.variables, filled, self.scale, self.shift)
            batches.append(np.asarray(logits)[: len(batch)])
        return np.concatenate(batches)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logits(network: AnyNetwork, kind: str, variables: dict, images: Array, scale: Array, shift: Array) -> Array:
    normalized = gather_batch(images, jnp.arange(len(images)), scale, shift)
    with jax.default_matmul_precision(MATMUL[network.precision]):
        return averaged_logits(lambda images: network.apply(variables, images, train=False), normalized, kind)


def load_trial(workdir: str | Path, trial: str, *, trust_code: bool = False) -> Trained:
    """Loads the network of one trial of a run.

    Args:
        workdir: the run's folder.
        trial: id of the trial, as in trials.csv, or its beginning.
        trust_code: whether to run the copies of own code in the folder, if the original files have changed.

    Raises:
        RequestError: the folder is not a run's, or it has no such trial, or no weights of the trial.
    """
    return next(load_trials(workdir, [trial], trust_code=trust_code))


def load_trials(workdir: str | Path, trials: Sequence[str], *, trust_code: bool = False) -> Iterator[Trained]:
    """Yields the networks of several trials of a run; see `load_trial`."""
    folder = RunFolder(Path(workdir))
    folder.check_links()
    config = folder.read_config()
    if config is None or not (folder.path / "data.json").exists():
        raise RequestError("workdir", str(workdir), "must be a run's folder (with config.json and data.json)")
    study, data = from_config(config), read_json(folder.path / "data.json")
    lengths = [len(data.get(key, ())) for key in ("image_shape", "mean", "std", "classes")]
    if lengths[:3] != [3, *data.get("image_shape", ())[2:] * 2] or not lengths[3]:
        problem = "data.json has no classes, or its image_shape, mean and std do not match; use a run's folder"
        raise RequestError("workdir", str(workdir), problem)
    height, width, channels = data["image_shape"]
    classes = tuple(map(str, data["classes"]))
    plan = make_plan(study, [from_config(past) for past in folder.read_earlier()], numbered=folder.is_numbered())
    folder.check_plan(plan)
    ids = {program.id: [member.id for member in program.members] for program in plan.programs}
    found = {trial.id: trial for trial in plan.trials}  # in the order of the grid, as examples in an error
    found |= {trial.id: trial for member in plan.members.values() for trial in member.trials}

    @functools.lru_cache(1)  # the seeds of a configuration mostly share a state
    def read(directory: Path, epoch: int, best: bool, averages: bool, network: AnyNetwork) -> tuple[list[str], dict]:
        with pinned():
            shapes = variable_shapes(network, (height, width, channels))
            return read_variables(directory, epoch, best, shapes, averages)

    # One network for all seeds: it decides what is compiled and read again.
    network_of = functools.cache(lambda static: _network(static, len(classes), (height, width, channels)))
    wanted = [_find_trial(name, found) for name in trials]
    models = list(dict.fromkeys(trial.static.model for trial in wanted))
    folder.check_networks(models)
    own_code.prepare(study.code, models, folder.path, trusted=trust_code)
    for trial in wanted:
        best = trial.stages[-1].traced.early_stopping != "off"  # as in `train_state.final_variables`
        network = network_of(trial.static)
        state = _find_state(folder, ids.get(trial.program, ()), trial)
        members, stacked = read(*state, best, trial.static.averages, network)
        index = _place_of(trial, members)
        variables = jax.tree.map(lambda leaf, index=index: leaf[index], stacked)
        images = (*_normalization(trial, data), (height, width, channels), classes)
        yield Trained(trial, network, variables, *images, study.data.test_time_augment)


def _place_of(trial: Trial, members: Sequence[str]) -> tuple[int, ...]:
    """Returns the indices of a trial's weights in a state: the member's, and that of its average of the weights."""
    member = next(index for index, name in enumerate(members) if trial.member in name.split("+"))
    return (member, members[member].split("+").index(trial.member)) if trial.static.averages else (member,)


def _normalization(trial: Trial, data: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scale and the shift of a trial's pixels, given data.json."""
    traced = trial.stages[0].traced
    cut = {"split": trial.streams.split, "fold": traced.fold, "train_examples": trial.static.train_examples}
    same = (splits for splits in data.get("splits", ()) if {name: splits.get(name) for name in cut} == cut)
    statistics = next(same, data)
    mean, std = (np.array(statistics[name], np.float32) for name in ("mean", "std"))
    return affine_map(mean, std, traced.normalization)


def _find_trial(name: str, trials: Mapping[str, Trial]) -> Trial:
    """Returns the only trial whose id begins with `name`. Raises RequestError if it is not one."""
    if (found := completed(name, trials)) is not None:
        return trials[found]
    near = nearest(name, trials)
    examples = f"{', '.join([*trials][:3])}{', ...' if len(trials) > 3 else ''}"
    meant = f"did you mean {near!r}? Use an id of trials.csv" if near else "must be an id of trials.csv"
    raise RequestError("trial", name, f"{meant} ({examples}), or its beginning")


def _find_state(folder: RunFolder, members: Sequence[str], trial: Trial) -> tuple[Path, int]:
    """Returns the directory and the epoch of the state in which a trial ended."""
    row = folder.read_trials().get(trial.id)
    if row is None or row["status"] == "diverged":
        problem = "it has not finished" if row is None else f"it diverged in epoch {row['epochs_run']}"
        raise RequestError("trial", trial.id, f"{problem}; use a finished trial that did not diverge")
    for ids, _ in folder.read_layout(trial.program, members):
        directory = folder.checkpoints(trial.program, ids[0], ids[-1])
        # Every state from the last epoch of an early stopped trial to the longest possible training holds its weights.
        ended = [epoch for epoch in saved_epochs(directory) if int(row["epochs_run"]) <= epoch <= trial.epochs]
        if any(trial.member in member.split("+") for member in ids) and ended:
            return directory, ended[-1]
    problem = f"{folder.path / 'checkpoints'} has no state of its epoch {row['epochs_run']}"
    raise RequestError("trial", trial.id, f"{problem}; use a trial that has a checkpoint")


def _network(static: Static, num_classes: int, image_shape: tuple[int, int, int]) -> AnyNetwork:
    # tf32 needs a GPU; elsewhere float32 is more precise.
    only_gpu = static.arithmetic == "tf32" and jax.default_backend() != "gpu"
    precision = "float32" if only_gpu else static.arithmetic
    with own_code.blamed("models", static.model):
        return build_network(static.model, num_classes, precision, _convolution(static), image_shape)


def _convolution(static: Static) -> str:
    """Returns the method of the convolutions: auto, which is equal up to rounding, where this machine lacks it."""
    try:
        check_convolution(static.convolution, jax.default_backend())
    except RequestError:
        return "auto"
    return static.convolution
