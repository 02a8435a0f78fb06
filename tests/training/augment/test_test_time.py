"""Test-time augmentation: views and weights are those of airbench, written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.training.augment.test_time import averaged_logits


def by_hand(network, images, kind):
    if kind == "none":
        return network(images)
    mirrored = 0.5 * network(images) + 0.5 * network(images[:, :, ::-1])
    if kind == "flip":
        return mirrored
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    moved = [padded[:, 2:, 2:], padded[:, :-2, :-2]]
    of_moved = np.mean([0.5 * network(view) + 0.5 * network(view[:, :, ::-1]) for view in moved], axis=0)
    return 0.5 * mirrored + 0.5 * of_moved


@pytest.mark.parametrize("kind", ["none", "flip", "flip+shift"])
def test_logits_are_means_over_views(kind):
    generator = np.random.default_rng(0)
    images = generator.normal(size=(3, 5, 6, 2)).astype(np.float32)
    weights = generator.normal(size=(60, 4)).astype(np.float32)

    def network(images):
        return (images.reshape(len(images), -1) @ weights) ** 3

    found = averaged_logits(network, jnp.asarray(images), kind)
    np.testing.assert_allclose(found, by_hand(network, images, kind), rtol=1e-4, atol=1e-3)
