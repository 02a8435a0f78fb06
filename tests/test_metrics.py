import numpy as np
import pytest
import sklearn.metrics

from cnnjax import metrics


def _random(classes: int, examples: int = 500, dtype=np.float16):
    rng = np.random.default_rng(classes)
    logits = rng.normal(0, 3, (examples, classes)).astype(dtype)
    return logits, rng.integers(0, classes, examples).astype(np.int32)


def _expected(logits, labels):
    predicted, classes = logits.argmax(axis=1), range(logits.shape[1])
    macro = {"labels": classes, "average": "macro", "zero_division": 0}
    odds = np.exp(logits.astype(np.float64))
    return {
        "loss": sklearn.metrics.log_loss(labels, odds / odds.sum(axis=1, keepdims=True), labels=classes),
        "accuracy": sklearn.metrics.accuracy_score(labels, predicted),
        "precision": sklearn.metrics.precision_score(labels, predicted, **macro),
        "recall": sklearn.metrics.recall_score(labels, predicted, **macro),
        "f1": sklearn.metrics.f1_score(labels, predicted, **macro),
    }


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_classification_agrees_with_sklearn(classes, dtype):
    logits, labels = _random(classes, dtype=dtype)
    assert metrics.classification(logits, labels) == pytest.approx(_expected(logits, labels))


def test_a_class_never_predicted_and_one_never_true_count_as_zero():
    logits, labels = _random(5)
    logits[:, 3] = -20  # log_loss clips below 2e-16
    labels[(labels == 1) | (labels == 3)] = 0  # 1 only predicted, 3 neither predicted nor true
    assert metrics.classification(logits, labels) == pytest.approx(_expected(logits, labels))
    constant = metrics.classification(np.eye(4)[[2] * 8], np.arange(8) % 4)
    assert constant["accuracy"] == constant["recall"] == 0.25
    assert constant["precision"] == 0.25 / 4
    assert constant["f1"] == pytest.approx(0.4 / 4)  # 2 * .25 * 1 / 1.25, over four classes


def test_only_one_true_class():
    logits, _ = _random(3)
    labels = np.full(len(logits), 1, np.int32)
    result = metrics.classification(logits, labels)
    assert result["recall"] == pytest.approx(result["accuracy"] / 3)


def test_ties_go_to_the_first_maximum():
    logits = np.zeros((4, 3), np.float16)
    assert metrics.classification(logits, np.array([0, 0, 1, 2]))["accuracy"] == 0.5
    assert metrics.confusion(logits, np.array([0, 0, 1, 2])).tolist() == [
        [2, 0, 0],
        [1, 0, 0],
        [1, 0, 0],
    ]


def test_loss_is_exact_for_extreme_logits():
    logits = np.array([[0.0, -60000.0], [0.0, -60000.0]], np.float16)
    measured = metrics.classification(logits, np.array([0, 1]))["loss"]
    assert measured == pytest.approx(-float(logits[0, 1]) / 2)


@pytest.mark.parametrize("classes", [2, 10])
def test_confusion_agrees_with_sklearn(classes):
    logits, labels = _random(classes)
    logits[:, 0] = -100  # a column of zeros stays a column
    expected = sklearn.metrics.confusion_matrix(labels, logits.argmax(axis=1), labels=range(classes))
    np.testing.assert_array_equal(metrics.confusion(logits, labels), expected)


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 3], [0, 1, -1], []])
def test_labels_that_do_not_fit_are_refused(labels):
    rows = len(labels) if not labels else 3
    with pytest.raises(ValueError, match="labels"):
        metrics.classification(np.zeros((rows, 3)), np.array(labels, int))
