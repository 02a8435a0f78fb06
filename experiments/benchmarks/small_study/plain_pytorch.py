"""The study as a plain script of PyTorch, which prints means: plain_pytorch.py IMAGES.npz."""

import sys

import numpy as np
import torch
from torch import nn

with np.load(sys.argv[1]) as data:
    train_x, test_x = (torch.tensor(data[name] / 127.5 - 1, dtype=torch.float32) for name in ("train_x", "test_x"))
    train_y, test_y = (torch.tensor(data[name], dtype=torch.long) for name in ("train_y", "test_y"))


def small() -> nn.Module:
    """Two convolutions."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(7 * 7 * 32, 10)),
    )


def large() -> nn.Module:
    """Two wider convolutions and a dense layer."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(7 * 7 * 64, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


for build in (small, large):
    for rate in (1e-3, 1e-2):
        accuracies = []
        for seed in range(3):
            torch.manual_seed(seed)
            model = build()
            optimizer = torch.optim.Adam(model.parameters(), lr=rate)
            for _ in range(2):
                for batch in torch.randperm(len(train_x)).split(64):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(train_x[batch]), train_y[batch]).backward()
                    optimizer.step()
            with torch.no_grad():
                found = torch.cat([model(part).argmax(1) for part in test_x.split(1000)])
            accuracies.append((found == test_y).float().mean().item())
        print(build.__name__, rate, np.mean(accuracies))
