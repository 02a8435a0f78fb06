"""The training loop of the source studies: PIL images, transformed one by one in a DataLoader."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn
from torch.utils.data import DataLoader, Dataset

from experiments.benchmarks import torch_models

WARM_UP_STEPS = 5
LEARNING_RATE = 1e-3
PADDING = 4


class SourceLoop:
    """One model in training as the studies train it: eager PyTorch, transforms image by image.

    The loop is theirs, with `loss.item()` after every step, except that an epoch's last, partial
    batch is dropped: every step counts `batch_size` images.

    Attributes:
        steps: how many steps were taken, warm-up included.
        running_loss: the sum over steps of the mean loss of a batch.
    """

    def __init__(
        self,
        model_name: str,
        optimizer: str,
        batch_size: int,
        device: str,
        images: np.ndarray,
        labels: np.ndarray,
        num_workers: int = 0,
    ):
        """Builds the data loader and the model.

        Args:
            model_name: a rung of the ladder.
            optimizer: 'sgd' (momentum 0.9) or 'adam'.
            batch_size: images a step.
            device: 'cpu' or 'cuda'.
            images: uint8 (examples, size, size, 3), at least one batch.
            labels: integers (examples,).
            num_workers: processes that load; with 0, as in the studies, the training process does.
        """
        self.device = device
        size, classes = images.shape[1], int(labels.max()) + 1
        self.loader = DataLoader(
            PILDataset(images, labels, train_transform(size)),
            batch_size=batch_size,
            shuffle=True,
            num_workers=num_workers,
            drop_last=True,
            persistent_workers=num_workers > 0,
        )
        self.model = torch_models.build(model_name, image_size=size, classes=classes).to(device)
        if optimizer == "sgd":
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LEARNING_RATE, momentum=0.9)
        else:
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
        self.criterion = nn.CrossEntropyLoss()
        self.steps = 0
        self.running_loss = 0.0
        self._batches = self._endless()

    def run(self, steps: int) -> float:
        """Trains for a number of steps and returns the seconds; the first call warms up."""
        if self.steps == 0:
            self._train(WARM_UP_STEPS)
        start = time.perf_counter()
        self._train(steps)
        return time.perf_counter() - start  # `item` has waited for the device

    def _train(self, steps: int) -> None:
        self.model.train()
        for _ in range(steps):
            images, labels = next(self._batches)
            images, labels = images.to(self.device), labels.to(self.device)
            self.optimizer.zero_grad()
            outputs = self.model(images)
            loss = self.criterion(outputs, labels)
            loss.backward()
            self.optimizer.step()
            self.running_loss += loss.item()
            self.steps += 1

    def _endless(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from self.loader


class PILDataset(Dataset):
    """Keeps an array and hands out transformed PIL images, as torchvision's CIFAR10 does."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        transform: Callable[[Image.Image], torch.Tensor],
    ):
        self.images = images
        self.labels = labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def train_transform(size: int) -> Callable[[Image.Image], torch.Tensor]:
    """Returns the studies' training transform, each step written as torchvision writes it."""
    return Compose(random_horizontal_flip, RandomCrop(size), to_tensor, normalize)


class Compose:
    """Transforms one after the other (a class, so that loader processes can unpickle it)."""

    def __init__(self, *transforms: Callable):
        self.transforms = transforms

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Returns the image after all transforms."""
        result: Any = image
        for transform in self.transforms:
            result = transform(result)
        return result


def random_horizontal_flip(image: Image.Image) -> Image.Image:
    """Mirrors half of the images."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(1) < 0.5 else image


class RandomCrop:
    """Crops `size` pixels at a random place of the image with PADDING black pixels around it."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        """Returns a crop of `size` by `size` pixels."""
        image = ImageOps.expand(image, border=PADDING, fill=0)
        top = torch.randint(0, image.height - self.size + 1, size=(1,)).item()
        left = torch.randint(0, image.width - self.size + 1, size=(1,)).item()
        return image.crop((left, top, left + self.size, top + self.size))


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Returns float32 (channels, height, width) from 0 to 1."""
    pixels = torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1).contiguous()
    return pixels.to(torch.float32).div(255)


def normalize(image: torch.Tensor) -> torch.Tensor:
    """Returns (x - 0.5) / 0.5, in float32 from -1 to 1."""
    mean = torch.as_tensor((0.5,), dtype=image.dtype).view(-1, 1, 1)
    std = torch.as_tensor((0.5,), dtype=image.dtype).view(-1, 1, 1)
    return image.clone().sub_(mean).div_(std)
