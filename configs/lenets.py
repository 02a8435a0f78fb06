"""Five networks of LeNet-5's kind on CIFAR-10: what do more layers, more width and more epochs bring?

    python -m cnnjax.launch --config=configs/lenets.py           # all five, 2 and 25 epochs
    python -m cnnjax.launch --config=configs/lenets.py:turned    # the two smallest on turned and rotated images
    python -m cnnjax.launch --config=configs/lenets.py:decay     # the second: a tenth of the rate from epoch 22 on

CIFAR-10 has to be prepared once: `python -m cnnjax.data.prepare cifar10`.
Expected run time: hours on a CPU, minutes on a GPU; `--plan` says what would run.
`configs/lenets.py:smoke` is the same study on 500 images, in minutes on a CPU.
"""

from ml_collections import ConfigDict

from cnnjax.utils.errors import RequestError


def get_config(arg: str = "") -> ConfigDict:
    """Returns the study; `arg` is empty, `turned`, `decay` or `smoke`."""
    if arg not in ("", "turned", "decay", "smoke"):
        raise RequestError("--config", arg, "allowed after the colon: turned, decay, smoke")
    config = ConfigDict()
    config.models = ("lenet", "lenet_deep", "lenet_32_64", "lenet_64_128", "lenet_64_128_256")
    config.seeds = (0, 1, 2)
    config.select = "test_accuracy"  # as the study did, which has no validation split

    config.data = ConfigDict()
    config.data.name = "cifar10"
    config.data.normalization = "half"
    config.data.validation = 0.0  # as the study did

    config.train = ConfigDict()
    # Neither optimizer nor batch size is stated; this is the rule of the tutorial that the first network is from. At
    # batch size 32 it learns far too slowly for the published figures (experiments/cifar10_lenets).
    config.train.optimizer = "sgd"
    config.train.learning_rate = 0.001
    config.train.momentum = 0.9
    config.train.batch_size = 4
    config.train.epochs = (2, 25)

    if arg == "turned":
        config.models = ("lenet", "lenet_deep")
        config.data.augment = ("flip_all", "flip_vertical_all", "rotate")
        config.data.augment_test = True  # the study has one transform, by every sign for both
        config.train.epochs = (2,)
    if arg == "decay":
        config.models = ("lenet_deep",)
        config.train.epochs = (47,)
        config.train.schedule = "piecewise:22=0.1"
    if arg == "smoke":
        config.seeds = (0, 1)
        config.data.train_examples = 500
        config.train.epochs = (1, 2)
    return config
