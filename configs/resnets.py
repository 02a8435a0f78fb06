"""Residual networks of 20, 32 and 56 layers on CIFAR-10, and a plain network: what does depth bring?

    python -m cnnjax.launch --config=configs/resnets.py

The training is that of He et al. 2016, section 4.2: SGD with momentum and weight decay, 64,000 steps of 128 images, a
tenth of the learning rate after 32,000 and 48,000 steps, padded crops and flips. They report 91.25 %, 92.49 % and
93.03 % correct on the test split. CIFAR-10 has to be prepared once: `python -m cnnjax.data.prepare cifar10`.
Expected run time: days on a CPU, hours on a GPU; `--plan` says what would run.
`configs/resnets.py:smoke` is the same study on 100 digits, in a minute and a half on a CPU.
"""

from ml_collections import ConfigDict

from cnnjax.utils.errors import RequestError


def get_config(arg: str = "") -> ConfigDict:
    """Returns the study; `arg` is empty or `smoke`."""
    if arg not in ("", "smoke"):
        raise RequestError("--config", arg, "allowed after the colon: smoke")
    config = ConfigDict()
    config.models = ("resnet20", "resnet32", "resnet56", "complex")
    config.seeds = (0, 1, 2)
    config.select = "test_accuracy"  # as the study did, which trains on all 50,000 images

    config.data = ConfigDict()
    config.data.name = "cifar10"
    config.data.normalization = "standard"
    config.data.validation = 0.0
    config.data.augment = ("flip", "crop")

    config.train = ConfigDict()
    config.train.optimizer = "sgd"
    config.train.learning_rate = 0.1
    config.train.momentum = 0.9
    config.train.weight_decay = 1e-4
    config.train.batch_size = 128
    config.train.epochs = 164
    config.train.schedule = "piecewise:82=0.1/123=0.01"

    if arg == "smoke":
        config.seeds = (0,)
        config.data.name = "digits"
        config.data.train_examples = 100
        config.train.batch_size = 50
        config.train.epochs = 1
        config.train.schedule = "constant"
    return config
