"""Which network, optimizer, learning rate and momentum suit 8x8 digits best? A search, where a grid would be large.

    python -m cnnjax.launch --config=configs/search.py

Successive halving: 27 configurations train for one epoch, the best 9 of them for three, the best 3 for nine; these get
more seeds for as long as they may be the best. A grid of as many configurations would train six times as many epochs.
It needs no download. Expected run time: half a minute on two CPU cores.
`configs/search.py:smoke` is the same search with 6 configurations of one network and at most 2 epochs.
"""

from ml_collections import ConfigDict

from cnnjax.utils.errors import RequestError


def get_config(arg: str = "") -> ConfigDict:
    """Returns the study; `arg` is empty or `smoke`."""
    if arg not in ("", "smoke"):
        raise RequestError("--config", arg, "allowed after the colon: smoke")
    config = ConfigDict()
    config.models = ("baseline", "medium")
    config.seeds = (0, 1, 2)
    config.select = "val_accuracy"

    config.data = ConfigDict()
    config.data.name = "digits"
    config.data.validation = 158  # leaves 1,280 to train on: whole batches, which halve the time to compile

    config.train = ConfigDict()
    config.train.optimizer = ("adam", "sgd")  # in a search, each configuration has one of them
    config.train.learning_rate = "log_uniform(1e-4, 1e-1)"
    config.train.momentum = "uniform(0, 0.95)"  # of sgd
    config.train.batch_size = 32
    config.train.epochs = 9

    config.search = ConfigDict()
    config.search.method = "halving"
    config.search.trials = 27

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 100  # an epoch takes less time than writing it down

    if arg == "smoke":
        config.models = ("baseline",)
        config.seeds = (0, 1)
        config.data.train_examples = 320
        config.train.epochs = 2
        config.search.trials = 6
        config.search.factor = 2
    return config
