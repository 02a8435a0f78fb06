"""Holds the formula of a plan's memory against the compiler's figure, for every model of layers: within 30 %.

python -m tests.campaigns.memory_formula
"""

from tests.models.test_network import PUBLISHED
from tests.training.test_memory_formula import check


def main() -> None:
    """Checks one model after another; a model that misses raises an AssertionError."""
    for name in PUBLISHED:
        check(name)
        print(f"{name}: within 30 %", flush=True)


if __name__ == "__main__":
    main()
