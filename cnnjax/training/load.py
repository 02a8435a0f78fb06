"""Trained networks, taken out of a run's checkpoints."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from cnnjax.data.normalization import affine_map
from cnnjax.models.network import MATMUL, Network, build_network, variable_shapes
from cnnjax.runs.integrity import read_json
from cnnjax.runs.run_dir import RunFolder
from cnnjax.study.plan import Program, Trial, make_plan
from cnnjax.study.schema import from_config
from cnnjax.training.augment import gather_batch
from cnnjax.training.checkpoints import read_variables, saved_epochs
from cnnjax.training.devices import pinned
from cnnjax.training.evaluate import EVALUATION_BATCH
from cnnjax.utils.errors import RequestError, one_of


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network as a trial left it: what the trial's test figures were measured on.

    `network.apply(variables, images * scale + shift, train=False)` are its logits for a batch of images [N, H, W, C].

    Attributes:
        trial: its settings.
        network: its layers.
        variables: 'params', and 'batch_stats' where there is batch norm: nested dicts of numpy arrays.
        scale: float32 [C]; a pixel of 0..255 becomes `pixel * scale + shift`.
        shift: float32 [C].
        image_shape: (H, W, C) of the images that it was trained on.
        classes: their names; logit i is that of classes[i].
    """

    trial: Trial
    network: Network
    variables: dict = dataclasses.field(repr=False)
    scale: np.ndarray = dataclasses.field(repr=False)
    shift: np.ndarray = dataclasses.field(repr=False)
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]

    def logits(self, images_NxHxWxC: UInt8[np.ndarray, "N H W C"]) -> Float[np.ndarray, "N K"]:
        """Returns float32 logits of images as they are stored.

        Raises:
            RequestError: they are not uint8, which 0..1 would all become black in, or not of `image_shape`.
        """
        images = np.asarray(images_NxHxWxC)
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            allowed = f"allowed: uint8 [N, {', '.join(map(str, self.image_shape))}], of 0..255"
            raise RequestError("images", f"{images.dtype} {list(images.shape)}", allowed)
        found = [np.zeros((0, len(self.classes)), np.float32)]
        for start in range(0, len(images), EVALUATION_BATCH):
            batch = images[start : start + EVALUATION_BATCH]
            filled = np.zeros((EVALUATION_BATCH, *batch.shape[1:]), np.uint8)  # batches of one size: one program
            filled[: len(batch)] = batch
            with pinned():
                logits = _logits(self.network, self.variables, filled, self.scale, self.shift)
            found.append(np.asarray(logits)[: len(batch)])
        return np.concatenate(found)


@functools.partial(jax.jit, static_argnums=0)
def _logits(network: Network, variables: dict, images: Array, scale: Array, shift: Array) -> Array:
    with jax.default_matmul_precision(MATMUL[network.precision]):
        logits = network.apply(variables, gather_batch(images, jnp.arange(len(images)), scale, shift), train=False)
    assert isinstance(logits, jnp.ndarray)
    return logits


def load_trial(workdir: str | Path, trial: str) -> Trained:
    """Takes the network of one trial out of a run.

    Args:
        workdir: the run's folder.
        trial: its id, as in trials.csv.

    Raises:
        RequestError: the folder is no run's, or has no such trial, or no weights of it.
    """
    return next(load_trials(workdir, [trial]))


def load_trials(workdir: str | Path, trials: Sequence[str]) -> Iterator[Trained]:
    """Takes the networks of several trials out of a run, one after another; see `load_trial`."""
    folder = RunFolder(Path(workdir))
    folder.check_links()
    config = folder.read_config()
    if config is None or not (folder.path / "data.json").exists():
        raise RequestError("workdir", str(workdir), "allowed: a run's folder (with config.json and data.json)")
    study, data = from_config(config), read_json(folder.path / "data.json")
    lengths = [len(data.get(key, ())) for key in ("image_shape", "mean", "std", "classes")]
    if lengths[:3] != [3, *data.get("image_shape", ())[2:] * 2] or not lengths[3]:
        said = "data.json has no classes, or an image_shape, mean and std that do not go together: not a run's"
        raise RequestError("workdir", str(workdir), said)
    mean, std = (np.array(data[name], np.float32) for name in ("mean", "std"))
    height, width, channels = data["image_shape"]
    classes = tuple(map(str, data["classes"]))
    about_data = *affine_map(mean, std, study.data.normalization), (height, width, channels), classes
    plan = make_plan(study)
    folder.check_plan(plan)
    found = {t.id: (program, m.id, t) for program in plan.programs for m in program.members for t in m.trials}

    @functools.lru_cache(1)  # the seeds of a setting mostly share a state
    def read(directory: Path, epoch: int, best: bool, network: Network) -> tuple[list[str], dict]:
        with pinned():
            shapes = variable_shapes(network, (height, width, channels))
            return read_variables(directory, epoch, best, shapes)

    for name in trials:
        if name not in found:
            near = one_of(name, found).partition("allowed:")[0]
            raise RequestError("trial", name, f"{near}allowed: {min(found)} to {max(found)}")
        program, member, trial = found[name]
        folder.check_networks([trial.static.model])
        best = trial.stages[-1].traced.early_stopping != "off"  # as in `train_state.final_variables`
        network = _network(trial, len(classes))
        members, stacked = read(*_find_state(folder, program, member, trial), best, network)
        yield Trained(trial, network, _take(stacked, members.index(member)), *about_data)


def _take(stacked: dict, member: int) -> dict:
    return jax.tree.map(lambda leaf: leaf[member], stacked)


def _find_state(folder: RunFolder, program: Program, member: str, trial: Trial) -> tuple[Path, int]:
    """The directory and the epoch of the state in which a trial ended."""
    row = folder.read_trials().get(trial.id)
    if row is None or row["status"] == "diverged":
        how = "it has not finished" if row is None else f"it diverged in epoch {row['epochs_run']}"
        raise RequestError("trial", trial.id, f"{how}; allowed: a trial that ended well")
    ids = [m.id for m in program.members]
    for first, end, _ in folder.read_layout(program.id) or []:
        directory = folder.checkpoints(program.id, ids[first], ids[end - 1])
        # A trial that stopped early is in any state from its last epoch to the last that its training could have.
        ended = [epoch for epoch in saved_epochs(directory) if int(row["epochs_run"]) <= epoch <= trial.epochs]
        if member in ids[first:end] and ended:
            return directory, ended[-1]
    raise RequestError(
        "trial",
        trial.id,
        f"{folder.path / 'checkpoints'} has no state of its epoch {row['epochs_run']}; "
        "allowed: a trial whose checkpoint is there",
    )


def _network(trial: Trial, classes: int) -> Network:
    static = trial.static
    # Without a GPU there is no tf32, which float32 only adds digits to.
    only_gpu = static.arithmetic == "tf32" and jax.default_backend() != "gpu"
    return build_network(static.model, classes, "float32" if only_gpu else static.arithmetic, static.convolution)
