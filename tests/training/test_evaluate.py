"""Evaluation counts every example once, in order, for any number of examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from cnnjax.analysis.metrics import classification
from cnnjax.models.network import build_network, initial_variables
from cnnjax.training import evaluate
from cnnjax.training.evaluate import DeviceSplit
from tests.support.studies import logits_of


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 6, 7, 8, 9, 22])
def test_every_example_counts_once(count, monkeypatch):
    monkeypatch.setattr(evaluate, "EVALUATION_BATCH", 8)
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, 4, 4, 1), np.uint8)
    labels = rng.integers(0, 3, count).astype(np.int32)
    network = build_network("baseline", 3)
    variables = initial_variables(network, (4, 4, 1), "he", jax.random.key(0))
    split = DeviceSplit(jnp.array(images), jnp.array(labels), jnp.array([1 / 255]), jnp.array([0.5]))
    logits = logits_of(network, variables, images / np.float32(255) + 0.5).astype(np.float64)
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(count), labels]

    measures = jax.jit(evaluate.evaluate, static_argnums=0)(network, variables, split)
    assert float(measures.loss) == pytest.approx(losses.mean(), rel=1e-5)
    assert float(measures.accuracy) == pytest.approx((logits.argmax(-1) == labels).mean())
    expected = precision_recall_fscore_support(
        labels, logits.argmax(-1), labels=range(3), average="macro", zero_division=0
    )
    np.testing.assert_allclose((measures.precision, measures.recall, measures.f1), expected[:3], rtol=1e-5)

    predicted = jax.jit(evaluate.predict, static_argnums=0)(network, variables, split)
    assert predicted.dtype == jnp.float16
    np.testing.assert_allclose(predicted, logits - logits.max(-1, keepdims=True), atol=2e-3)


class _Pixels:
    """A network whose logits are an image's channels."""

    num_classes = 7

    def apply(self, variables, images, *, train):
        return images[:, 0, 0]


_evaluate = jax.jit(lambda split: evaluate.evaluate(_Pixels(), {}, split))
_SCORES = st.lists(st.lists(st.sampled_from([0, 1, 7]), min_size=7, max_size=7), min_size=12, max_size=12)


@settings(max_examples=100, deadline=None)
@given(_SCORES, st.lists(st.integers(0, 6), min_size=12, max_size=12) | st.integers(0, 6).map(lambda k: [k] * 12))
def test_the_device_measures_as_the_host_does_where_classes_tie_or_are_absent(scores, labels):
    logits, labels = np.array(scores, np.uint8), np.array(labels, np.int32)
    split = DeviceSplit(jnp.array(logits[:, None, None]), jnp.array(labels), jnp.ones(7), jnp.zeros(7))
    measured = {name: float(value) for name, value in _evaluate(split)._asdict().items()}
    assert measured == pytest.approx(classification(logits.astype(float), labels), rel=1e-5)


def test_logits_that_are_nan_have_no_metrics():
    """`argmax` of NaN is the first class for every image, which is not a prediction."""
    images = np.full((300, 1, 1, 7), 3, np.uint8)
    split = DeviceSplit(jnp.array(images), jnp.zeros(300, jnp.int32), jnp.full(7, jnp.nan), jnp.zeros(7))
    assert np.isnan(_evaluate(split)).all()
