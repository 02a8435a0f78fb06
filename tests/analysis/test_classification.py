import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnjax.analysis import metrics


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
        "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(labels, predicted),
        "top5_accuracy": np.mean(
            [label in np.argsort(-row, kind="stable")[:5] for row, label in zip(logits, labels, strict=True)]
        ),
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
    for function in (metrics.class_report, metrics.roc):
        with pytest.raises(ValueError, match="labels"):
            function(np.zeros((rows, 3)), np.array(labels, int))


@st.composite
def _predictions(draw):
    """Logits of few distinct values, so of many ties; classes may be absent, never predicted, or the only one."""
    classes, examples = draw(st.integers(1, 6)), draw(st.integers(1, 30))
    values = st.sampled_from([-30.0, -1.0, 0.0, 0.5, 2.0])
    logits = draw(st.lists(st.lists(values, min_size=classes, max_size=classes), min_size=examples, max_size=examples))
    present = draw(st.lists(st.integers(0, classes - 1), min_size=1, unique=True))
    labels = draw(st.lists(st.sampled_from(present), min_size=examples, max_size=examples))
    return np.array(logits, np.float16), np.array(labels, np.int32)


@settings(max_examples=60, deadline=None)
@given(_predictions())
def test_class_report_agrees_with_sklearn(predictions):
    logits, labels = predictions
    classes = [str(k) for k in range(logits.shape[1])]
    expected = sklearn.metrics.classification_report(
        labels,
        logits.argmax(axis=1),
        labels=range(len(classes)),
        target_names=classes,
        output_dict=True,
        zero_division=0,
    )
    report = metrics.class_report(logits, labels)
    names = ("precision", "recall", "f1-score")
    for k, name in enumerate(classes):
        ours = (report.precision[k], report.recall[k], report.f1[k], report.support[k])
        assert ours == pytest.approx(tuple(expected[name][column] for column in (*names, "support")))
    for mean, ours in (("macro avg", report.macro), ("weighted avg", report.weighted)):
        assert ours == pytest.approx(tuple(expected[mean][column] for column in names))
    assert report.accuracy == sklearn.metrics.accuracy_score(labels, logits.argmax(axis=1))
    assert report.accuracy == pytest.approx(report.weighted[1])
    assert report.macro == pytest.approx(
        tuple(metrics.classification(logits, labels)[name] for name in ("precision", "recall", "f1"))
    )


@settings(max_examples=60, deadline=None)
@given(_predictions())
def test_area_under_the_curve_is_the_share_of_pairs_in_the_right_order(predictions):
    logits, labels = predictions
    probabilities = scipy.special.softmax(logits.astype(np.float64), axis=1)
    curves = metrics.roc(logits, labels)
    assert len(curves) == logits.shape[1]
    areas = []
    for k, curve in enumerate(curves):
        inside, outside = probabilities[labels == k, k], probabilities[labels != k, k]
        if not len(inside) or not len(outside):
            assert math.isnan(curve.auc) and not len(curve.true_positive_rate)
            continue
        areas.append(scipy.stats.mannwhitneyu(inside, outside).statistic / len(inside) / len(outside))
        assert curve.auc == pytest.approx(areas[-1])
        for rate in (curve.false_positive_rate, curve.true_positive_rate):
            assert (rate[0], rate[-1]) == (0, 1) and (np.diff(rate) >= 0).all()
    macro = metrics.macro_auc(curves)
    assert macro == pytest.approx(np.mean(areas)) if areas else math.isnan(macro)


@settings(max_examples=60, deadline=None)
@given(_predictions())
def test_every_measure_agrees_with_sklearn_where_classes_tie_or_are_absent(predictions):
    logits, labels = predictions
    classes = logits.shape[1]
    if classes > 1:  # of one class scikit-learn has no loss, and doubts its matrix
        assert metrics.classification(logits, labels) == pytest.approx(_expected(logits, labels), rel=1e-6, abs=1e-12)
        counts = sklearn.metrics.confusion_matrix(labels, logits.argmax(axis=1), labels=range(classes))
        np.testing.assert_array_equal(metrics.confusion(logits, labels), counts)
    probabilities = scipy.special.softmax(logits.astype(np.float64), axis=1)
    for k, curve in enumerate(metrics.roc(logits, labels)):
        if 0 < (labels == k).sum() < len(labels):
            assert curve.auc == pytest.approx(sklearn.metrics.roc_auc_score(labels == k, probabilities[:, k]))


@pytest.mark.parametrize("classes", [3, 10])
def test_macro_area_agrees_with_sklearn(classes):
    logits, labels = _random(classes)
    logits[:, 1] = -20  # never predicted
    probabilities = scipy.special.softmax(logits.astype(np.float64), axis=1)
    expected = sklearn.metrics.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert metrics.macro_auc(metrics.roc(logits, labels)) == pytest.approx(expected)


def test_areas_of_perfect_reversed_and_constant_predictions():
    labels = np.array([0, 1, 2] * 4)
    for logits, area in ((np.eye(3)[labels], 1), (-np.eye(3)[labels], 0), (np.zeros((12, 3)), 0.5)):
        assert [curve.auc for curve in metrics.roc(logits, labels)] == [area] * 3


def test_points_of_a_curve_are_the_rates_above_a_threshold():
    logits, labels = _random(4, examples=60)
    probability = scipy.special.softmax(logits.astype(np.float64), axis=1)[:, 2]
    rates = {((probability >= t)[labels != 2].mean(), (probability >= t)[labels == 2].mean()) for t in probability}
    curve = metrics.roc(logits, labels)[2]
    points = set(zip(curve.false_positive_rate.tolist(), curve.true_positive_rate.tolist(), strict=True))
    assert points <= rates | {(0, 0)}
