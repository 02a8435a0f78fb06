"""Which learning rate suits a base network and its improvement on CIFAR-10, and how high may it be?

    python -m cnnjax.launch --config=configs/learning_rates.py

CIFAR-10 has to be prepared once: `python -m cnnjax.data.prepare cifar10`.
Expected run time: hours on a CPU, minutes on a GPU; `--plan` says what would run.
`configs/learning_rates.py:smoke` is the same study on 500 images of 16x16 pixels, in minutes on a CPU.
"""

from ml_collections import ConfigDict

from cnnjax.types import RequestError


def get_config(arg: str = "") -> ConfigDict:
    """Returns the study; `arg` is empty or `smoke`."""
    if arg not in ("", "smoke"):
        raise RequestError("--config", arg, "allowed after the colon: smoke")
    config = ConfigDict()
    config.models = ("base", "improved")
    config.seeds = (5, 6, 7)
    config.select = "val_accuracy"

    config.data = ConfigDict()
    config.data.name = "cifar10"
    config.data.normalisation = "standard"
    config.data.validation = 0.5
    config.data.validation_from = "test"  # as the study did: half of the test images

    config.train = ConfigDict()
    config.train.initialisation = "he"  # as the study drew the improved network; it does not say so of the base
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
