"""A search by Optuna that trains one PyTorch trial at a time, by the tuned loop of `pytorch_peer`."""

import time
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
import torch

from cnnjax.study.schema import Study
from experiments.benchmarks.pytorch_peer import WARM_UP_STEPS, Peer

TRIALS = 16
STEPS = 100  # of the run that finds the faster number of threads


class Point(NamedTuple):
    """A configuration."""

    optimizer: str
    learning_rate: float
    batch_size: int
    epochs: int


class Searcher:
    """Searches the configurations of a grid of the smallest network. The data is loaded at once.

    Attributes:
        examples: the number of validation examples.
    """

    def __init__(self, study: Study):
        """Loads the data of a grid, and chooses the number of threads."""
        from cnnjax.training.program import load_data

        dataset = load_data(study)
        count = study.data.train_examples[0]
        assert dataset.validation is not None
        self._study = study
        self._train = np.asarray(dataset.train.images[:count]), np.asarray(dataset.train.labels[:count])
        self._validation = np.asarray(dataset.validation.images), np.asarray(dataset.validation.labels)
        self.examples = len(self._validation[1])
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        if self._device == "cpu":
            self._choose_threads()
        self._images, self._seconds = 0, 0.0
        self._of_kind: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0.0, 0])  # seconds and images

    def search(self, finalists: int) -> dict[Point, dict[int, float]]:
        """Searches with one seed, then trains the best configurations with all seeds.

        A configuration that Optuna asks for again has its result already.

        Args:
            finalists: how many configurations get all seeds.

        Returns:
            The validation accuracies of the finalists by seed, the best by the first seed first.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        train, (first, *others) = self._study.train, self._study.seeds
        values: dict[Point, dict[int, float]] = {}
        start = time.perf_counter()

        def objective(trial: optuna.Trial) -> float:
            axes = {name: getattr(train, name) for name in Point._fields}
            point = Point(*(trial.suggest_categorical(name, of) for name, of in axes.items()))
            if point not in values:
                values[point] = {first: self._accuracy(point, first)}
            return values[point][first]

        optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0)).optimize(
            objective, n_trials=TRIALS
        )
        best = sorted(values, key=lambda point: -values[point][first])[:finalists]
        for point in best:
            values[point] |= {seed: self._accuracy(point, seed) for seed in others}
        self._seconds = time.perf_counter() - start
        return {point: values[point] for point in best}

    def costs(self) -> dict[str, Any]:
        """Returns the seconds and images of the search, and of training the whole grid at its speed."""
        train, seeds = self._study.train, self._study.seeds
        epochs = max(train.epochs)
        images = epochs * len(self._train[1]) * len(seeds) * len(train.learning_rate)
        kinds = [(optimizer, size) for optimizer in train.optimizer for size in train.batch_size]
        known = {kind: seconds / count for kind, (seconds, count) in self._of_kind.items()}
        mean = sum(known.values()) / len(known)  # for a kind that the search did not try
        return {
            "seconds": self._seconds,
            "images": self._images,
            "grid_seconds": sum(images * known.get(kind, mean) for kind in kinds),
            "grid_images": images * len(kinds),
        }

    def _accuracy(self, point: Point, seed: int) -> float:
        """Trains a configuration, and returns its validation accuracy."""
        start = time.perf_counter()
        torch.manual_seed(seed)
        peer = Peer("baseline", point.optimizer, point.batch_size, self._device, *self._train)
        for group in peer.optimizer.param_groups:
            group["lr"] = point.learning_rate
        peer.run(point.epochs * (len(self._train[1]) // point.batch_size) - WARM_UP_STEPS)
        accuracy = self._validate(peer)
        of_kind = self._of_kind[point.optimizer, point.batch_size]
        of_kind[0] += time.perf_counter() - start
        of_kind[1] += peer.steps * point.batch_size
        self._images += peer.steps * point.batch_size
        return accuracy

    @torch.inference_mode()
    def _validate(self, peer: Peer) -> float:
        peer.model.eval()
        hits = 0
        for images, labels in zip(*(np.array_split(part, 10) for part in self._validation), strict=True):
            batch = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
            hits += int((peer.model(batch).argmax(1).cpu().numpy() == labels).sum())
        return hits / self.examples

    def _choose_threads(self) -> None:
        """Uses all threads, or one, whichever trains faster."""
        seconds = {}
        for threads in {torch.get_num_threads(), 1}:
            torch.set_num_threads(threads)
            seconds[threads] = Peer("baseline", "adam", 32, self._device, *self._train).run(STEPS)
        torch.set_num_threads(min(seconds, key=lambda threads: seconds[threads]))
