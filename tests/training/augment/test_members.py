"""Members with augmented labels and averaged evaluations: in any company, and against NumPy."""

import jax
import numpy as np
import pytest

from tests.support.studies import make_study
from tests.training.augment.test_test_time import by_hand
from tests.training.test_population import Bench, assert_close, member_of

AUGMENT = "alternating_flip+crop:2:reflect+brightness:0.4+contrast:0.4+cutout:3+mixup:0.2"


@pytest.mark.slow
def test_a_member_depends_on_no_other_and_its_evaluations_are_means_over_views(tiny):
    bench = Bench(make_study(seeds=(0, 1), data={"augment": AUGMENT, "test_time_augment": "flip+shift"}))
    state, history = bench.train(bench.members, 2)
    twice = bench.train([bench.members[1]] * 2, 2)  # as many, so that nothing compiles again
    assert_close(member_of((state, history), 1), member_of(twice, 0))
    assert (history.train_loss[0] != history.train_loss[1]).all()
    variables = member_of(state.variables, 1)
    apply = jax.jit(bench.population.config.network.apply, static_argnames="train")

    def logits(split, kind="flip+shift"):
        images = np.asarray(split.images) * np.asarray(split.scale) + np.asarray(split.shift)
        return by_hand(lambda images: np.asarray(apply(variables, images, train=False)), images, kind)

    validation = bench.splits.validation
    assert history.val_accuracy[1, 1] == pytest.approx((logits(validation).argmax(1) == validation.labels).mean())
    test = logits(bench.splits.test)
    stored = bench.predict(bench.members, state)[1].astype(np.float32)
    np.testing.assert_allclose(stored, test - test.max(1, keepdims=True), rtol=2e-3, atol=2e-3)
    assert np.abs(test - logits(bench.splits.test, "none")).max() > 0.05
