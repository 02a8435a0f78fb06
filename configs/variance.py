"""Where does the spread between seeds come from? Five random streams, crossed, on CIFAR-10 at 16x16 pixels.

    python -m cnnjax.launch --config=configs/variance.py

Every one of three initializations meets every one of three orders of the training images, three sequences of flips and
crops, three sequences of dropped units, and three splits, each of which draws 5,000 of CIFAR-10's training images: 243
trainings of one network in one compiled program, looked at after 1, 2 and 4 epochs. The report splits the variance of
their test accuracy among the streams and their interactions.
CIFAR-10 has to be prepared once: `python -m cnnjax.data.prepare cifar10`.
Expected run time: half an hour on a CPU core, minutes on a GPU.
`configs/variance.py:smoke` crosses two seeds each, on 500 images, in a minute on a CPU.
"""

from ml_collections import ConfigDict

from cnnjax.utils.errors import RequestError


def get_config(arg: str = "") -> ConfigDict:
    """Returns the study; `arg` is empty or `smoke`."""
    if arg not in ("", "smoke"):
        raise RequestError("--config", arg, "allowed after the colon: smoke")
    config = ConfigDict()
    config.models = ("medium",)
    config.seeds = (0,)  # all streams are set below
    config.select = "train_loss"  # nothing is to be selected

    config.data = ConfigDict()
    config.data.name = "cifar10"
    config.data.image_size = 16
    config.data.resize = "bilinear"
    config.data.normalization = "half"
    config.data.validation = 0.0
    config.data.augment = ("flip", "crop")
    config.data.train_examples = 5000

    config.train = ConfigDict()
    config.train.optimizer = "adam"
    config.train.learning_rate = 0.001
    config.train.batch_size = 50
    config.train.epochs = (1, 2, 4)

    config.streams = ConfigDict()
    for stream in ("init", "order", "augment", "dropout", "split"):
        config.streams[stream] = (0, 1, 2)

    if arg == "smoke":
        config.data.train_examples = 500
        config.train.epochs = (1, 2)
        for stream in config.streams:
            config.streams[stream] = (0, 1)
    return config
