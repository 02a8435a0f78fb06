"""Three small networks on 8x8 digits: which optimizer and learning rate suits each?

    python -m cnnjax.launch --config=configs/quickstart.py

It needs no download: the digits come with scikit-learn. Expected run time: a minute and a half on
two CPU cores, half a minute once it is compiled.
`configs/quickstart.py:smoke` is the same study with one seed and one epoch.
"""

from ml_collections import ConfigDict

from cnnjax.utils.errors import RequestError


def get_config(arg: str = "") -> ConfigDict:
    """Returns the study; `arg` is empty or `smoke`."""
    if arg not in ("", "smoke"):
        raise RequestError("--config", arg, "allowed after the colon: smoke")
    config = ConfigDict()
    config.models = ("baseline", "medium", "complex")
    config.seeds = (0, 1, 2)
    config.select = "val_accuracy"

    config.data = ConfigDict()
    config.data.name = "digits"
    config.data.normalization = "half"
    config.data.validation = 158  # leaves 1,280 to train on: whole batches, which halve the time to compile

    config.train = ConfigDict()
    config.train.optimizer = ("adam", "sgd")
    config.train.learning_rate = (1e-3, 1e-2)
    config.train.momentum = 0.9  # of sgd
    config.train.batch_size = 32
    config.train.epochs = 3

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 100  # an epoch takes less time than writing it down

    if arg == "smoke":
        config.seeds = (0,)
        config.train.epochs = 1
    return config
