"""Which learning rate suits a base network and its improvement on CIFAR-10, and how high may it be?

    python -m cnnjax.launch --config=configs/learning_rates.py:base
    python -m cnnjax.launch --config=configs/learning_rates.py

The first trains the base network, from PyTorch's initialization, the second the improved one, from He's, as the study
drew it; from He's the base network diverges at every rate but the lowest.

CIFAR-10 has to be prepared once: `python -m cnnjax.data.prepare cifar10`.
Expected run time: hours on a CPU, minutes on a GPU; `--plan` says what would run.
`configs/learning_rates.py:smoke` is the same study on 500 images of 16x16 pixels, in minutes on a CPU.
"""

from ml_collections import ConfigDict

from cnnjax.utils.errors import RequestError


def get_config(arg: str = "") -> ConfigDict:
    """Returns the study; `arg` is empty (the improved network), `base` or `smoke`."""
    if arg not in ("", "base", "smoke"):
        raise RequestError("--config", arg, "allowed after the colon: base, smoke")
    config = ConfigDict()
    config.models = ("base",) if arg == "base" else ("improved",)
    config.seeds = (5, 6, 7)
    config.select = "val_accuracy"

    config.data = ConfigDict()
    config.data.name = "cifar10"
    config.data.normalization = "standard"
    config.data.validation = 0.5
    config.data.validation_from = "test"  # as the study did: half of the test images

    config.train = ConfigDict()
    config.train.initialization = "pytorch" if arg == "base" else "he"
    config.train.optimizer = "sgd"
    config.train.learning_rate = (0.01, 0.03, 0.05, 0.1)
    config.train.momentum = 0.0
    config.train.batch_size = 16  # neither is stated: see configs/seeds.py
    config.train.epochs = 4

    if arg == "smoke":
        config.seeds = (5, 6)
        config.data.image_size = 16
        config.data.resize = "bilinear"
        config.data.train_examples = 500
        config.train.epochs = 1
    return config
