"""The training loop a strong PyTorch user would write: data in memory, no Python work per image."""

import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from experiments.benchmarks import torch_models

PADDING = 4
WARM_UP_STEPS = 5
LEARNING_RATE = 1e-3


class Peer:
    """One model in training, as fast as plain PyTorch runs it.

    The whole data set lies on the device as uint8, padded, plain and mirrored. One indexing
    operation draws the random crops and flips of a batch, channels last in memory, which are then
    scaled to (x / 255 - 0.5) / 0.5. Pools run before their ReLU, the optimizer is fused, and loss
    and hits are summed on the device, so that no step waits for a number. Epochs are shuffled and
    drop their last, partial batch: every step counts `batch_size` images.

    Attributes:
        compiled: whether the model runs through `torch.compile`; False too when that failed.
        steps: how many steps were taken, warm-up included.
        loss_sum: the sum over steps of the mean loss of a batch, a scalar on the device.
        hits: how many images were classified correctly, a scalar on the device.
    """

    def __init__(
        self,
        model_name: str,
        optimizer: str,
        batch_size: int,
        device: str,
        images: np.ndarray,
        labels: np.ndarray,
        compile: bool = False,
        bfloat16: bool = False,
    ):
        """Moves the data to the device and builds the model there.

        Args:
            model_name: a rung of the ladder.
            optimizer: 'sgd' (momentum 0.9) or 'adam'.
            batch_size: images a step.
            device: 'cpu' or 'cuda'.
            images: uint8 (examples, size, size, channels), at least one batch.
            labels: integers (examples,).
            compile: run the model through `torch.compile` and, on CUDA, a whole step as one CUDA
                graph, from the crops to the optimizer. On a CPU it did not pay for any model here.
            bfloat16: run the forward pass in automatic mixed precision.
        """
        if device == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
        self.device = device
        self.batch_size = batch_size
        self.bfloat16 = bfloat16
        self.windows = crop_windows(torch.from_numpy(images).to(device))
        self.labels = torch.from_numpy(labels).long().to(device)

        _, size, _, channels = images.shape
        model = torch_models.build(model_name, channels, size, classes=int(labels.max()) + 1)
        self.model = pool_before_relu(model).to(device).train()
        # PyTorch's own type hints lack this overload.
        self.model.to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(optimizer, self.model.parameters())
        self.compiled = compile
        self._forward = self.model
        if compile:
            self._forward = torch.compile(self.model)
        self._replay: Callable[[torch.Tensor], None] | None = None  # a recorded step
        self._records = compile and device == "cuda"

        self.steps = 0
        self.loss_sum = torch.zeros((), device=device)
        self.hits = torch.zeros((), dtype=torch.long, device=device)
        self._batches = iter(())

    def run(self, steps: int) -> float:
        """Trains for a number of steps and returns the seconds until the device has done them.

        The first call warms up (compilation, caches, optimizer state) before the clock starts.
        """
        if self.steps == 0:
            self._warm_up()
        self._synchronize()
        start = time.perf_counter()
        self._train(steps)
        self._synchronize()
        return time.perf_counter() - start

    def _warm_up(self) -> None:
        try:
            self._train(WARM_UP_STEPS)
        except RuntimeError as error:
            if not self.compiled:
                raise
            warnings.warn(f"torch.compile failed, running eagerly: {error}", stacklevel=3)
            self.compiled, self._forward = False, self.model
            self._train(WARM_UP_STEPS)
        if self._records:
            self._record()

    def _record(self) -> None:
        """Makes a step the replay of a CUDA graph, recorded after some on a stream of its own, as PyTorch asks for."""
        batch = torch.zeros(self.batch_size, dtype=torch.long, device=self.device)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                self._step(batch)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step(batch)
        self.steps -= 1  # a recording computes nothing

        def replay(indices: torch.Tensor) -> None:
            batch.copy_(indices)
            graph.replay()
            self.steps += 1

        self._replay = replay

    def _train(self, steps: int) -> None:
        for _ in range(steps):
            indices: torch.Tensor | None = next(self._batches, None)
            if indices is None:
                order = torch.randperm(len(self.labels), device=self.device)
                full = len(order) - len(order) % self.batch_size
                self._batches = iter(order[:full].split(self.batch_size))
                indices = next(self._batches)
            (self._replay or self._step)(indices)

    def _step(self, indices: torch.Tensor) -> None:
        images, labels = random_crops(self.windows, indices), self.labels[indices]
        images = images.float().div_(127.5).sub_(1)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bfloat16):
            logits = self._forward(images)
            loss = F.cross_entropy(logits, labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_sum += loss.detach()
        self.hits += (logits.detach().argmax(1) == labels).sum()
        self.steps += 1

    def _synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def pool_before_relu(model: nn.Module) -> nn.Module:
    """Moves each ReLU behind the max-pool that follows it: same numbers, a quarter of its work.

    Values and gradients are equal because ReLU is monotone and its derivative at 0 is 0.
    """
    if not isinstance(model, nn.Sequential):
        return model
    layers = list(model.named_children())
    for i in range(len(layers) - 1):
        if isinstance(layers[i][1], nn.ReLU) and isinstance(layers[i + 1][1], nn.MaxPool2d):
            layers[i], layers[i + 1] = layers[i + 1], layers[i]
    return nn.Sequential(OrderedDict(layers))


def make_optimizer(name: str, weights: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
    """Returns 'sgd' (momentum 0.9) or 'adam' for some weights, the update in few kernels."""
    if name == "sgd":
        return torch.optim.SGD(weights, lr=LEARNING_RATE, momentum=0.9, fused=True)
    return torch.optim.Adam(weights, lr=LEARNING_RATE, fused=True)


def crop_windows(images: torch.Tensor) -> torch.Tensor:
    """Returns every crop that augmentation can draw, as a view: indexing it copies whole crops.

    Args:
        images: uint8 (examples, size, size, channels).

    Returns:
        uint8 (2, examples, offsets, offsets, size, size, channels): plain and mirrored, and the
        offsets of a crop in the image with PADDING zeros on each side. It takes the memory of two
        padded data sets.
    """
    size = images.shape[1]
    padded = F.pad(images, (0, 0, PADDING, PADDING, PADDING, PADDING))
    both = torch.stack([padded, padded.flip(2)])
    return both.unfold(2, size, 1).unfold(3, size, 1).permute(0, 1, 2, 3, 5, 6, 4)


def random_crops(windows: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Draws a crop of each image, mirrored half the time.

    Args:
        windows: what `crop_windows` returned.
        indices: which examples, (batch,).

    Returns:
        uint8 (batch, channels, size, size), channels last in memory.
    """
    batch, device = len(indices), windows.device
    mirrored = torch.randint(2, (batch,), device=device)
    top, left = torch.randint(windows.shape[2], (2, batch), device=device)
    return windows[mirrored, indices, top, left].permute(0, 3, 1, 2)
