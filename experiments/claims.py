"""What the five source studies published, figure by figure: single runs, as they were printed."""

from collections.abc import Iterator
from typing import Any, NamedTuple


class Claim(NamedTuple):
    """One published figure.

    Attributes:
        name: what the study calls it.
        of: the configurations that it was measured with, as columns of trials.csv; what is not stated is left out.
        measure: a column of trials.csv; or 'highest val_accuracy', of all epochs; or 'val_f1 of epoch 3'; or
            'f1 of class Shirt'.
        printed: the figure with the digits that were printed, accuracies in percent.
    """

    name: str
    of: dict[str, Any]
    measure: str
    printed: str


# Three architectures on CIFAR-10.
_ARCHITECTURES = (
    ("baseline", "adam", 0.001, 32, 5, "59.56"),
    ("baseline", "adam", 0.001, 64, 5, "59.50"),
    ("baseline", "adam", 0.001, 32, 10, "62.49"),
    ("baseline", "adam", 0.001, 64, 10, "63.14"),
    ("baseline", "adam", 0.01, 32, 5, "39.89"),
    ("complex", "sgd", 0.01, 32, 10, "76.16"),
    ("complex", "sgd", 0.001, 32, 10, "75.59"),
    ("complex", "sgd", 0.01, 64, 10, "74.54"),
    ("medium", "adam", 0.001, 64, 10, "73.87"),
    ("complex", "sgd", 0.001, 64, 10, "73.25"),
)

# A base network and its improvement on CIFAR-10. Of the base network over seeds 5 to 9: mean, standard deviation,
# range, least and most test accuracy; and train and validation accuracy by epoch of one seed.
SEEDS = (72.15, 0.48, 1.44, 71.44, 72.88)
SEEDS_CURVE = ((54.81, 66.86), (68.57, 66.96), (72.52, 72.44), (75.00, 72.84))
_IMPROVEMENT = (("base", "72.48"), ("improved", "82.12"))

# Highest validation accuracies of networks on Fashion-MNIST; the table of the base network shows its last epochs only.
_RULES = {
    "": {"optimizer": "adam", "weight_decay": 0.0},
    ", SGD": {"optimizer": "sgd", "weight_decay": 0.0},
    ", L2": {"optimizer": "adam", "weight_decay": 0.01},
}
_REGULARIZATION = (
    ("dense", "", "83.3"),
    ("dense_wide", "", "83.9"),
    ("dense_deep", "", "85.3"),
    ("dense", ", SGD", "84.3"),
    ("dense", ", L2", "81.0"),
    ("dense_batchnorm", "", "84.3"),
    ("dense_dropout", "", "78.8"),
    ("cnn", "", "87.5"),
    ("cnn_wide", "", "86.2"),
    ("cnn_deep", "", "87.8"),
    ("cnn", ", SGD", "86.9"),
    ("cnn", ", L2", "86.9"),
    ("cnn_batchnorm", "", "88.1"),
    ("cnn_dropout", "", "87.4"),
)

# The final network on Fashion-MNIST: test figures, and F1 of each class.
_FINAL = {
    "highest val_accuracy": "91.4",
    "test_accuracy": "91.6",
    "precision": "0.917",
    "recall": "0.917",
    "f1": "0.917",
}
_FINAL_F1 = {
    **{"T-shirt/top": "0.872", "Trouser": "0.995", "Pullover": "0.877", "Dress": "0.901", "Coat": "0.864"},
    **{"Sandal": "0.978", "Shirt": "0.756", "Sneaker": "0.964", "Bag": "0.984", "Ankle boot": "0.976"},
}

# Five classes of drawings, by epoch, of the test set, which validated.
_DEPTH = (
    ("one block", "blocks_24", "f1", ("0.9156", "0.9315", "0.9349", "0.9398", "0.9427")),
    ("8-16 kernels", "blocks_8_16", "accuracy", ("94.74", "94.98", "95.32", "95.32", "95.22", "95.31")),
    ("32-64 kernels", "blocks_32_64", "accuracy", ("93.34", "93.89", "95.21", "95.36", "95.19", "95.66")),
)

# Eight models on CIFAR-10.
_TURNED = "flip_all+flip_vertical_all+rotate"
_LENETS = (
    ("model 1", {"model": "lenet", "augment": "none", "epochs": 2}, "53", None),
    ("model 2", {"model": "lenet", "augment": _TURNED, "epochs": 2}, "47", None),
    ("model 3", {"model": "lenet_deep", "augment": _TURNED, "epochs": 2}, "46", None),
    ("model 4", {"model": "lenet_deep", "augment": "none", "epochs": 25}, "58", "63.29"),
    ("model 5", {"model": "lenet_deep", "augment": "none", "epochs": 47}, "61", "71.69"),
    ("model 6", {"model": "lenet_32_64", "augment": "none", "epochs": 25}, "69", "92.01"),
    ("model 7", {"model": "lenet_64_128", "augment": "none", "epochs": 25}, "72", "97.09"),
    ("model 8", {"model": "lenet_64_128_256", "augment": "none", "epochs": 25}, "71", "95.38"),
)


def claims() -> Iterator[Claim]:
    """Every published figure of a single run, study by study."""
    for model, optimizer, rate, batch, epochs, printed in _ARCHITECTURES:
        of = {"model": model, "optimizer": optimizer, "learning_rate": rate, "batch_size": batch, "epochs": epochs}
        yield Claim(model, of, "test_accuracy", printed)
    for model, printed in _IMPROVEMENT:
        yield Claim(model, {"model": model, "learning_rate": 0.03, "epochs": 4}, "test_accuracy", printed)
    for model, rule, printed in _REGULARIZATION:
        yield Claim(model + rule, {"model": model} | _RULES[rule], "highest val_accuracy", printed)
    for measure, printed in (_FINAL | {f"f1 of class {name}": f1 for name, f1 in _FINAL_F1.items()}).items():
        yield Claim("final network", {"model": "cnn_final"}, measure, printed)
    for name, model, measure, by_epoch in _DEPTH:
        for epoch, printed in enumerate(by_epoch, 1):
            yield Claim(name, {"model": model}, f"val_{measure} of epoch {epoch}", printed)
    for name, of, test, train in _LENETS:
        yield Claim(name, of, "test_accuracy", test)
        if train is not None:
            yield Claim(name, of, "train_accuracy", train)
