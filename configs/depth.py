"""How many convolutions, how many kernels, how many dense layers? 28x28 gray images of five classes.

    python -m cnnjax.launch --config=configs/depth.py                             # five classes of Fashion-MNIST
    python -m cnnjax.launch --config=configs/depth.py --config.data.path=FOLDER   # Quick, Draw! bitmaps, CLASS.npy each

Fashion-MNIST has to be prepared once: `python -m cnnjax.data.prepare fashion_mnist`.
Expected run time: hours on a CPU, minutes on a GPU; `--plan` says what would run.
`configs/depth.py:smoke` is the same study on 500 images, in minutes on a CPU.
"""

from ml_collections import ConfigDict

from cnnjax.utils.errors import RequestError


def get_config(arg: str = "") -> ConfigDict:
    """Returns the study; `arg` is empty or `smoke`."""
    if arg not in ("", "smoke"):
        raise RequestError("--config", arg, "allowed after the colon: smoke")
    config = ConfigDict()
    config.models = (
        *("blocks_24", "blocks_24_48", "blocks_24_48_64"),
        *("blocks_8_16", "blocks_16_32", "blocks_32_64", "blocks_40_80", "blocks_48_96"),
        "blocks_32_64_dense",
    )
    config.seeds = (0, 1, 2)
    config.select = "val_loss"

    config.data = ConfigDict()
    config.data.name = "fashion_mnist"  # stands in for the study's drawings, which are not published
    config.data.classes = (0, 1, 2, 3, 4)
    config.data.normalization = "unit"
    config.data.validation = 0.0
    config.data.validation_from = "same_as_test"  # as the study did

    config.train = ConfigDict()
    config.train.optimizer = "adam"
    config.train.learning_rate = 0.001 / 0.95  # the study counts its epochs from 0, and decays before the first
    config.train.schedule = "exponential:0.95"
    config.train.batch_size = 64
    config.train.drop_last = True
    config.train.epochs = 30
    config.train.early_stopping = "val_loss:3"

    if arg == "smoke":
        config.seeds = (0, 1)
        config.data.train_examples = 500
        config.train.epochs = 2
    return config
