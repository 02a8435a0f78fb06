"""A population: `train_epoch` mapped over members and devices, compiled once."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnnjax.models.network import MATMUL, build_network
from cnnjax.models.shards import AXIS
from cnnjax.multihost import processes
from cnnjax.study.augmentation import names
from cnnjax.study.hparams import Static, Streams
from cnnjax.study.plan import Member
from cnnjax.study.schema import Study
from cnnjax.training import devices
from cnnjax.training.device_data import DeviceData
from cnnjax.training.evaluate import predict
from cnnjax.training.losses import load_loss
from cnnjax.training.own_functions import load_metrics
from cnnjax.training.stacking import Hparams, TableSize, stack_members
from cnnjax.training.train import init_train_state, train_epoch
from cnnjax.training.train_state import (
    EpochMetrics,
    StaticConfig,
    TrainState,
    epoch_metrics,
    final_variables,
    has_ended,
    map_averages,
    with_more_epochs,
)

_FAST_COMPILE = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}  # compiler options

MEMBERS = PartitionSpec("members")
SHARED = PartitionSpec()


def map_members(function: Callable[[Any], Any], stacked: Any) -> Any:
    """Maps a function of one member over members that are stacked along the first axis of every array.

    Accelerators take all members at once, by `jax.vmap`. A CPU takes one after another: the member's arrays stay in the
    cache, and XLA compiles some products and reductions with a member axis to code that is ten times slower.
    """
    if jax.default_backend() == "cpu":
        return lax.map(function, stacked)
    return jax.vmap(function)(stacked)


class Population:
    """The compiled program of one static configuration. Its methods take and return stacked members.

    The member axis is sharded over the mesh's first axis. Members do not communicate, so results do not depend on the
    layout. Its second axis shares each batch of a member: results are those of whole batches up to rounding.
    `traces` counts how often the training function was traced. With `profile`, a directory, each call of `advance` is
    one epoch, and the second call writes a trace of the device there, for Perfetto or XProf. `tables` is the size of
    the schedules' tables, by default for a study without schedules by step.
    """

    def __init__(
        self,
        study: Study,
        static: Static,
        image_shape: tuple[int, int, int],
        num_classes: int,
        mesh: Mesh,
        profile: Path | None = None,
        tables: TableSize | None = None,
    ):
        network = build_network(static.model, num_classes, static.arithmetic, static.convolution, image_shape)
        self.config = StaticConfig(
            *(network, static.initialization, static.optimizer, static.batch_size, names(static.augment)),
            drop_last=static.drop_last,
            clips=static.clips,
            plateaus=static.plateaus,
            parts=static.parts,
            groups=static.groups,
            averages=static.averages,
            test_time_augment=study.data.test_time_augment,
            loss=load_loss(static.loss),
            class_weights=static.class_weights,
            metrics=load_metrics(study.metrics),
            shards=mesh.shape[AXIS],
        )
        self.every = 1 if profile else study.checkpoint.every
        self.keep = study.checkpoint.keep
        self.traces = 0
        self._calls = 0
        self._profile = profile
        self._split_seeds = study.split_seeds
        self._train_number = study.data.train_examples.index(static.train_examples)
        self._tables = tables or TableSize(study.train.longest_stage)
        self._monitor = study.select if study.select.startswith("val_") else "val_accuracy"
        self._image_shape = image_shape
        self._keep_best = static.keeps_best
        self._mesh = mesh
        self._functions = {
            # It runs once, so optimizing it does not pay off.
            "init": self._map(self._init_member, (MEMBERS, MEMBERS), _FAST_COMPILE),
            "advance": self._map(self._advance_member, (MEMBERS, MEMBERS, MEMBERS, SHARED, SHARED)),
            "predict": self._map(self._predict_member, (MEMBERS, MEMBERS, MEMBERS, SHARED)),
        }
        self._compiled: dict[tuple[str, int, int], Any] = {}  # by function and numbers of members and averages
        self._states: dict[tuple[int, int], TrainState] = {}  # abstract ones, by these numbers
        self._bytes: dict[tuple[int, int], int] = {}  # that training needs on one device, by these numbers
        self._continue = jax.jit(with_more_epochs)
        self._gather = jax.jit(
            lambda stacked, members: jax.tree.map(lambda a: a[members], stacked), out_shardings=self.sharding
        )
        self._scatter = jax.jit(
            lambda stacked, part, members: jax.tree.map(lambda a, b: a.at[members].set(b), stacked, part),
            out_shardings=self.sharding,
        )

    def _map(self, function: Callable, specs: tuple[PartitionSpec, ...], options: dict[str, Any] | None = None) -> Any:
        """Maps a one-member function over the member axis of its first arguments, and over the devices."""

        def over_members(*arguments: Any) -> Any:
            stacked = tuple(argument for argument, spec in zip(arguments, specs, strict=True) if spec == MEMBERS)
            shared = arguments[len(stacked) :]
            with jax.default_matmul_precision(MATMUL[self.config.network.precision]):
                return map_members(lambda member: function(*member, *shared), stacked)

        # Members never communicate. The devices along the second axis hold the same members, and share their batches.
        sharded = jax.shard_map(over_members, mesh=self._mesh, in_specs=specs, out_specs=MEMBERS, check_vma=False)
        return jax.jit(sharded, compiler_options=options)

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures of an epoch."""
        return epoch_metrics(self.config.metrics)._fields

    @property
    def skips_ended(self) -> bool:
        """Whether members that have ended take no time: on a CPU, where members train one after another."""
        return jax.default_backend() == "cpu"

    @property
    def devices(self) -> int:
        """The number of devices, or of groups of devices that share batches, that the members are spread over."""
        return self._mesh.shape["members"]

    @property
    def mesh_shape(self) -> tuple[int, ...]:
        """How many groups of devices share the members, and how many devices of a group share each batch."""
        return self._mesh.devices.shape

    @property
    def sharding(self) -> NamedSharding:
        """The sharding of stacked members."""
        return NamedSharding(self._mesh, MEMBERS)

    def stack(self, members: Sequence[Member], size: int = 0) -> tuple[Hparams, Streams]:
        """Returns the stacked hyperparameters and streams of members of this program.

        Copies of the first member fill them up to `size`. If ended members take no time, the copies have 0 epochs, as
        if they had ended.
        """
        every = [*members, *[members[0]] * (size - len(members))]
        hparams, streams = stack_members(every, self._tables, self._monitor, self._split_seeds, self.measures)
        if self.skips_ended:
            hparams.epochs[len(members) :] = 0
        return hparams, streams

    def init(self, hparams: Hparams, streams: Streams) -> TrainState:
        """Returns the members before their first epoch."""
        stacked = self.put((hparams, streams))
        init = self._executable("init", *stacked)
        return processes.raise_on_all(lambda: jax.block_until_ready(init(*stacked)))

    @property
    def compiled(self) -> dict[str, Any]:
        """The number of compilations of training, the numbers of members, and the memory of the largest program."""
        sizes, memory = sorted({members for members, _ in self._bytes}), max(self._bytes.values(), default=None)
        return {"compilations": self.traces, "chunk_members": sizes, "memory_bytes": memory}

    def with_more_epochs(self, state: TrainState, hparams: Hparams) -> TrainState:
        """Returns the members, ready for more epochs than they were asked to train for before."""
        stage = self._continue(
            state._replace(params={}, batch_stats={}, opt_state=(), best=None, averages=None), self.put(hparams)
        )
        return state._replace(stage=stage.stage)

    def text(self, members: int) -> str:
        """Returns the optimized HLO of training for this number of members, with the source line of each operation."""
        wanted = ("advance", members)
        return next(compiled.as_text() for key, compiled in self._compiled.items() if key[:2] == wanted)

    def put(self, tree: Any) -> Any:
        """Shards stacked arrays over the devices."""
        return devices.put(tree, self.sharding)

    def abstract_state(self, hparams: Hparams, streams: Streams) -> TrainState:
        """Returns the shapes, dtypes and sharding of the members' state."""
        if (key := _numbers(hparams)) not in self._states:
            shapes = jax.eval_shape(self._functions["init"], hparams, streams)
            self._states[key] = jax.tree.map(
                lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=self.sharding), shapes
            )
        return self._states[key]

    def compile(self, hparams: Hparams, streams: Streams, data: DeviceData) -> int:
        """Compiles initialization, training and prediction for this number of members, unless done before.

        Returns:
            The bytes of memory that training needs on one device: arguments, results and temporaries.
        """
        stacked = self.put((hparams, streams))
        state = self.abstract_state(hparams, streams)
        self._executable("init", *stacked)
        self._executable("advance", state, *stacked, data, self._replicate(0))
        self._executable("predict", state, *stacked, data)
        return self._bytes[_numbers(hparams)]

    def _executable(self, name: str, *arguments: Any) -> Any:
        (hparams,) = (argument for argument in arguments if isinstance(argument, Hparams))
        numbers = _numbers(hparams)
        if (name, *numbers) not in self._compiled:
            compiled = self._compiled[name, *numbers] = self._functions[name].lower(*arguments).compile()
            if name == "advance":
                memory = compiled.memory_analysis()
                sizes = memory.argument_size_in_bytes, memory.output_size_in_bytes, memory.temp_size_in_bytes
                self._bytes[numbers] = sum(sizes)
        return self._compiled[name, *numbers]

    def advance(
        self,
        state: TrainState,
        hparams: Hparams,
        streams: Streams,
        data: DeviceData,
        epochs: int,
        some: np.ndarray | None = None,
    ) -> tuple[TrainState, EpochMetrics]:
        """Trains every member for up to `every` epochs in one compiled call.

        Args:
            state: of all members.
            hparams: of all members.
            streams: of all members.
            data: the splits.
            epochs: number of epochs.
            some: indices of the members to train; None for all. Repeated indices fill a size that is compiled.

        Returns:
            The new state, and metrics as NumPy arrays [members, epochs], NaN for members that did not train. If the
            program averages weights, they are [members, epochs, averages].
        """
        if some is not None:
            part, hparams, streams = self._gather((state, *self.put((hparams, streams))), some)
            trained, history = self.advance(part, hparams, streams, data, epochs)
            count = devices.count_members(state)
            whole = [np.full((count, *values.shape[1:]), np.nan, np.float32) for values in history]
            for target, values in zip(whole, history, strict=True):
                target[some] = values
            return self._scatter(state, trained, some), history._make(whole)
        arguments = (state, *self.put((hparams, streams)), data, self._replicate(epochs))
        advance = self._executable("advance", *arguments)
        with self._profiled():
            # If one process runs out of memory, all processes continue with fewer members.
            state, history = processes.raise_on_all(lambda: jax.block_until_ready(advance(*arguments)))
        return state, jax.tree.map(lambda a: a[:, :epochs], devices.get(history))

    def _replicate(self, number: int) -> jax.Array:
        return devices.put(np.int32(number), NamedSharding(self._mesh, SHARED))

    def _profiled(self) -> AbstractContextManager:
        self._calls += 1  # the first call touches all memory for the first time
        if self._profile is None or self._calls != 2:
            return nullcontext()
        return jax.profiler.trace(str(self._profile), create_perfetto_trace=True)

    def predict(self, state: TrainState, hparams: Hparams, streams: Streams, data: DeviceData) -> np.ndarray:
        """Returns the test logits of every member, float16 [members, examples, classes], rows shifted to maximum 0.

        If the program averages weights, they are [members, averages, examples, classes].
        """
        arguments = (state, *self.put((hparams, streams)), data)
        predict = self._executable("predict", *arguments)
        return devices.get(processes.raise_on_all(lambda: jax.block_until_ready(predict(*arguments))))

    def _init_member(self, hparams: Hparams, streams: Streams) -> TrainState:
        return init_train_state(hparams, streams, self._image_shape, self.config, keep_best=self._keep_best)

    def _advance_member(
        self, state: TrainState, hparams: Hparams, streams: Streams, data: DeviceData, epochs: jax.Array
    ) -> tuple[TrainState, EpochMetrics]:
        self.traces += 1  # runs when jax traces, not when the program runs
        ours = data.of_member(hparams, streams, self._train_number)

        def one_epoch(i: jax.Array, carry: tuple[TrainState, EpochMetrics]) -> tuple:
            state, history = carry
            state, metrics = train_epoch(state, hparams, streams, ours.train, ours.validation, self.config)
            return state, jax.tree.map(lambda row, value: row.at[i].set(value), history, metrics)

        if self.skips_ended:
            epochs = jnp.where(has_ended(state.diverged, state.stage, hparams.epochs), 0, epochs)
        shape = (self.every, *hparams.ema.shape[1:2]) if self.config.averages else (self.every,)
        history = epoch_metrics(self.config.metrics)(*(jnp.full(shape, jnp.nan) for _ in self.measures))
        return lax.fori_loop(0, epochs, one_epoch, (state, history))

    def _predict_member(self, state: TrainState, hparams: Hparams, streams: Streams, data: DeviceData) -> jax.Array:
        test = data.of_member(hparams, streams, self._train_number).test
        config = self.config

        def predicted(variables: dict) -> jax.Array:
            return predict(config.network, variables, test, config.augment, config.test_time_augment, config.shards)

        return map_averages(predicted, final_variables(state, hparams), state)


def _numbers(hparams: Hparams) -> tuple[int, int]:
    """Returns the numbers of members and of averages of the weights, which shapes depend on."""
    return devices.count_members(hparams), hparams.ema.shape[2]
