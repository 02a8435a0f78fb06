"""Which network and which regularisation for Fashion-MNIST at 32x32? Dense and convolutional, one change each.

    python -m cnnjax.launch --config=configs/regularisation.py          # ten networks, Adam
    python -m cnnjax.launch --config=configs/regularisation.py:sgd      # the two base networks, SGD
    python -m cnnjax.launch --config=configs/regularisation.py:l2       # the same, Adam with weight decay
    python -m cnnjax.launch --config=configs/regularisation.py:final    # the final network, in three stages

The data is read from fashion/train.csv, which has to be made once, of Fashion-MNIST as it is published (a folder of
four IDX files): `python -m cnnjax.data.to_csv --input=FOLDER --output=fashion`.
Expected run time: hours on a CPU, minutes on a GPU; `--plan` says what would run.
`configs/regularisation.py:smoke` is the first study on 1,000 images, in minutes on a CPU.
"""

from ml_collections import ConfigDict

from cnnjax.utils.errors import RequestError


def get_config(arg: str = "") -> ConfigDict:
    """Returns the study; `arg` is empty, `sgd`, `l2`, `final` or `smoke`."""
    if arg not in ("", "sgd", "l2", "final", "smoke"):
        raise RequestError("--config", arg, "allowed after the colon: sgd, l2, final, smoke")
    config = ConfigDict()
    config.models = (
        *("dense", "dense_wide", "dense_deep", "dense_batchnorm", "dense_dropout"),
        *("cnn", "cnn_wide", "cnn_deep", "cnn_batchnorm", "cnn_dropout"),
    )
    config.seeds = (0, 1, 2)
    config.select = "val_accuracy"

    config.data = ConfigDict()
    config.data.name = "fashion_mnist"
    config.data.path = "fashion/train.csv"  # 52,500 images of 32x32
    config.data.normalization = "none"  # pixels of 0..255, as in the study
    config.data.validation = 0.0
    config.data.fractions = (0.6, 0.2, 0.2)
    config.data.stored_augment = "flip_zoom"

    config.train = ConfigDict()
    config.train.optimizer = "adam"
    config.train.learning_rate = 0.001
    config.train.weight_decay = 0.0
    config.train.batch_size = 256
    config.train.shuffle = False
    config.train.epochs = 30
    config.train.early_stopping = "val_accuracy:4"  # stated as 3, but the printed tables end 4 epochs after the best

    if arg in ("sgd", "l2"):
        config.models = ("dense", "cnn")
        config.train.optimizer = "sgd" if arg == "sgd" else "adam"
        config.train.weight_decay = 0.01 if arg == "l2" else 0.0
    if arg == "final":
        config.models = ("cnn_final",)
        config.train.epochs = 200
        config.train.stages = (
            {"weight_decay": 0.001},
            {"optimizer": "sgd", "weight_decay": 0.001},
            {"optimizer": "sgd"},
        )
    if arg == "smoke":
        config.seeds = (0, 1)
        config.data.train_examples = 1000
        config.train.epochs = 2
    return config
