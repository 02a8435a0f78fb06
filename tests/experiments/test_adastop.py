"""AdaStop, written from its paper, and the looks of `--until=decided` on the same simulated studies."""

import math

import numpy as np
import pytest

from experiments.adastop import adastop
from experiments.evidence import grow


def test_clear_differences_are_decided_by_both_at_the_first_look():
    generator = np.random.default_rng(0)
    values = np.array([[0.0], [12.0], [0.3]]) + generator.normal(size=(3, 20))
    stopped, grown = adastop(values, 5, generator), grow(values)
    assert stopped.order[1].tolist() == [1, 0, 1] and stopped.order[0, 1] == stopped.order[2, 1] == -1
    assert grown.excluded.tolist() == [True, False, True] and grown.looks == 1
    assert stopped.seeds[1] <= 10 and grown.seeds.tolist() == [3, 3, 3]


def test_adastop_is_an_exact_permutation_test_at_its_only_look():
    """With two configurations and one look: the share of relabelings with as large a difference."""
    generator, itself = np.random.default_rng(1), []
    for _ in range(60):
        values = generator.normal(size=(2, 5)) + np.array([[1.5], [0]])
        pooled, sums = values.ravel(), []
        for chosen in range(2**10):
            mask = np.array([chosen >> place & 1 for place in range(10)], bool)
            if mask.sum() == 5:
                sums.append(abs(pooled[mask].sum() - pooled[~mask].sum()))
        p = np.mean(np.array(sums) >= abs(values[0].sum() - values[1].sum()) - 1e-9)
        if abs(p - 0.05) > 0.02:  # the permutations are drawn
            itself.append(bool(adastop(values, 5, generator).order.any()) == (p <= 0.05))
    assert len(itself) > 30 and all(itself)


@pytest.mark.simulation
def test_equal_configurations_are_seldom_told_apart_by_either():
    generator, studies = np.random.default_rng(2), 400
    drawn = [generator.normal(size=(2, 20)) for _ in range(studies)]
    slack = 4 * math.sqrt(0.05 * 0.95 / studies)
    assert np.mean([adastop(values, 5, generator).order.any() for values in drawn]) <= 0.05 + slack
    assert np.mean([grow(values).excluded.any() for values in drawn]) <= 0.05 + slack
