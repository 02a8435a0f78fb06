"""What `data.augment` takes, and how trials write it."""

import pytest

from cnnjax.study.schema import from_config
from cnnjax.study.trials import list_trials
from cnnjax.utils.errors import RequestError
from tests.support.studies import make_study

BOTH = ("flip", "crop")


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ((), ["none"]),
        ("none", ["none"]),
        ("flip", ["flip"]),
        (BOTH, ["flip+crop"]),
        (("crop", "flip"), ["flip+crop"]),
        ("crop+flip", ["flip+crop"]),
        (((), ("flip",), BOTH), ["none", "flip", "flip+crop"]),
        (("none", "flip", "flip+crop"), ["none", "flip", "flip+crop"]),
        ((("flip",), ("crop",)), ["flip", "crop"]),
        ((("flip",), "crop+rotate", "none"), ["flip", "crop+rotate", "none"]),
    ],
)
def test_values_are_read_written_and_read_again(given, texts):
    study = make_study(data={"augment": given})
    assert [trial.row()["augment"] for trial in list_trials(study)] == texts
    assert from_config(study.to_dict()) == study


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("spin", r"must be none, one of flip, crop\[:PIXELS\].*, got 'spin'$"),
        (("flip", "spin"), r"must be .*, got 'spin'$"),
        ("flip+spin", r"must be .*, got 'spin'$"),
        ("flip+", r"must be .*, got ''$"),
        (((), "none+flip"), r"must be .*, got 'none'$"),
        (((3,),), r"must be .*, got 3$"),
        (None, r"must be .*, got None$"),
        ("flip+flip", r".*a name occurs twice"),
        (("flip+crop", "crop+flip"), r".*a value occurs twice"),
        (((), "none"), r".*a value occurs twice"),
    ],
)
def test_other_values_are_refused(given, message):
    with pytest.raises(RequestError, match=rf"^data\.augment[ =]{message}"):
        make_study(data={"augment": given})
