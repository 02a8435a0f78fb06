"""Three architectures of increasing complexity on CIFAR-10: 48 configurations, five seeds each.

    python -m cnnjax.launch --config=configs/grid.py

Which architecture, optimizer, learning rate, batch size and training length classifies best, and
by more than the seeds differ? CIFAR-10 has to be prepared once:
`python -m cnnjax.data.prepare cifar10`.
Expected run time: hours on a CPU, minutes on a GPU; `--plan` says what would run.
`configs/grid.py:smoke` is the same study on 1,000 images of 8x8 pixels, in under a minute on a CPU.
"""

from ml_collections import ConfigDict

from cnnjax.utils.errors import RequestError


def get_config(arg: str = "") -> ConfigDict:
    """Returns the study; `arg` is empty or `smoke`."""
    if arg not in ("", "smoke"):
        raise RequestError("--config", arg, "allowed after the colon: smoke")
    config = ConfigDict()
    config.models = ("baseline", "medium", "complex")
    config.seeds = (0, 1, 2, 3, 4)
    config.select = "test_accuracy"  # as the study did, which has no validation split

    config.data = ConfigDict()
    config.data.name = "cifar10"
    config.data.normalization = "half"
    config.data.validation = 0.0  # as the study did
    config.data.augment = ("flip", "crop")

    config.train = ConfigDict()
    config.train.optimizer = ("adam", "sgd")
    config.train.learning_rate = (0.001, 0.01)
    config.train.momentum = 0.9  # of sgd
    config.train.batch_size = (32, 64)
    config.train.epochs = (5, 10)

    if arg == "smoke":
        config.seeds = (0, 1)
        config.data.image_size = 8
        config.data.resize = "bilinear"
        config.data.train_examples = 1000
        config.train.batch_size = (64,)
        config.train.epochs = (1, 2)
    return config
