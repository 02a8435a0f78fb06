"""Splits, statistics, normalization and resizing: against scikit-learn, NumPy, Pillow."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from cnnjax.data import Dataset, Split, load_dataset, normalization_map
from cnnjax.data.dataset import Cut, Source
from cnnjax.data.offline_augment import flip_zoom
from cnnjax.data.resize import resize_images
from cnnjax.data.splits import make_splits, select_classes
from cnnjax.study.schema import DataConfig, from_config
from cnnjax.utils.errors import RequestError


def numbered(first: int, count: int, classes: int) -> Split:
    """Examples whose images carry their own number, so that splits can be traced back."""
    ids = np.arange(first, first + count, dtype=np.uint32)
    images = ids.view(np.uint8).reshape(count, 2, 2, 1)
    labels = np.random.default_rng(count).integers(0, classes, count).astype(np.int32)
    return Split(images, labels)


def ids(split: Split | None) -> list[int]:
    return [] if split is None else np.ravel(split.images).view(np.uint32).tolist()


def split(train_count: int, test_count: int | None, classes: int = 3, **settings) -> Dataset:
    rest = None if test_count is None else numbered(10_000, test_count, classes)
    names = tuple(str(label) for label in range(classes))
    seeds = (settings.pop("split_seed", 0),)
    settings = {"validation": 0} | settings | {"train_examples": (settings.get("train_examples"),)}
    return make_splits(Source(numbered(0, train_count, classes), rest, names), DataConfig(**settings), "x", seeds)


shares = st.one_of(st.just(0.0), st.floats(0, 1, exclude_max=True), st.integers(0, 60))


@given(
    train=st.integers(1, 60),
    test=st.none() | st.integers(1, 40),
    classes=st.integers(1, 6),
    validation=shares,
    validation_from=st.sampled_from(["train", "test"]),
    test_share=st.floats(0.01, 0.99),
    train_examples=st.none() | st.integers(1, 60),
    stratify=st.booleans(),
    split_seed=st.integers(0, 2**32 - 1),
)
def test_no_example_is_in_two_splits(train, test, classes, test_share, **settings):
    try:
        dataset = split(train, test, classes, test=test_share, **settings)
    except RequestError as error:
        assert str(error).startswith("data.") and "\n" not in str(error)
        return
    parts = [ids(part) for part in (dataset.train, dataset.validation, dataset.test)]
    together = [*parts[0], *parts[1], *parts[2]]
    assert len(set(together)) == len(together)
    assert all(part == sorted(part) for part in parts)  # the stored order
    assert parts[0] and parts[2]
    everything = set(range(train)) | set(range(10_000, 10_000 + (test or 0)))
    assert set(together) <= everything
    if settings["train_examples"] is None:
        assert set(together) == everything
    else:
        assert len(parts[0]) == settings["train_examples"]
    if settings["validation"]:
        came_from_source_test = parts[1][0] >= 10_000
        assert came_from_source_test == (settings["validation_from"] == "test" and test is not None)


def test_labels_stay_with_their_images():
    dataset = split(50, None, validation=0.2, train_examples=20)
    original = numbered(0, 50, 3).labels
    for part in (dataset.train, dataset.validation, dataset.test):
        assert part.labels.tolist() == original[ids(part)].tolist()


@pytest.mark.parametrize(("validation", "count"), [(0.1, 100), (7, 7), (1, 1), (0.0504, 50)])
def test_validation_is_a_share_or_a_number(validation, count):
    dataset = split(1000, 10, validation=validation)
    assert (len(dataset.validation), len(dataset.train)) == (count, 1000 - count)


def test_splits_follow_their_seed_alone():
    assert ids(split(100, None, split_seed=3).test) == ids(split(100, None, split_seed=3).test)
    assert ids(split(100, None, split_seed=3).test) != ids(split(100, None, split_seed=4).test)
    with_validation = split(100, None, split_seed=3, validation=10)
    assert ids(split(100, None, split_seed=3).test) == ids(with_validation.test)
    some = split(100, None, split_seed=3, validation=10, train_examples=5)
    assert ids(some.validation) == ids(with_validation.validation)


@given(
    train=st.integers(1, 60),
    test=st.none() | st.integers(1, 40),
    weights=st.tuples(*[st.integers(1, 9)] * 3),
    stratify=st.booleans(),
    split_seed=st.integers(0, 2**32 - 1),
)
def test_fractions_share_out_all_examples(train, test, weights, **settings):
    shares = np.array(weights) / sum(weights)
    total = train + (test or 0)
    try:
        dataset = split(train, test, fractions=tuple(shares.tolist()), **settings)
    except RequestError as error:
        assert str(error).startswith("data.fractions=") and (shares * total).min() <= 1
        return
    parts = [ids(part) for part in (dataset.train, dataset.validation, dataset.test)]
    assert sorted([*parts[0], *parts[1], *parts[2]]) == [*range(train), *range(10_000, 10_000 + (test or 0))]
    assert all(part == sorted(part) for part in parts)
    assert np.abs([len(part) for part in parts] - shares * total).max() <= 1
    if test is None:
        assert dataset.test_from == dataset.validation_from == "train"
    else:
        assert dataset.test_from == dataset.validation_from == "pooled"


def test_fractions_pool_train_and_test_and_follow_the_seed():
    data = {"fractions": (0.6, 0.2, 0.2)}
    first, again, other = (split(8400, 2100, **data, split_seed=seed) for seed in (3, 3, 4))
    assert [len(part) for part in (first.train, first.validation, first.test)] == [6300, 2100, 2100]
    assert ids(first.validation) == ids(again.validation) != ids(other.validation)
    for part in (first.train, first.validation, first.test):
        assert np.mean(np.array(ids(part)) >= 10_000) == pytest.approx(0.2, abs=0.03)


def test_stratified_fractions():
    digits = load_digits().target
    dataset = load_dataset(DataConfig(fractions=(0.6, 0.2, 0.2), stratify=True))
    exact = np.bincount(digits) * 0.2
    assert np.abs(np.bincount(dataset.test.labels) - exact).max() < 1
    assert np.abs(np.bincount(dataset.validation.labels) - exact).max() < 1.25  # a quarter of what test left


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"fractions": (0.6, 0.2, 0.3)}, "data.fractions"),
        ({"fractions": (0.8, 0.2)}, "data.fractions"),
        ({"fractions": (0.8, 0.0, 0.2)}, "data.fractions"),
        ({"fractions": (1.2, 0.2, -0.4)}, "data.fractions"),
        ({"fractions": ("0.6", 0.2, 0.2)}, "data.fractions"),
        ({"fractions": 1.0}, "data.fractions"),
        ({"fractions": (0.6, 0.2, 0.2), "validation": 0.1}, "data.validation"),
        ({"fractions": (0.6, 0.2, 0.2), "validation_from": "test"}, "data.validation_from"),
        ({"fractions": (0.6, 0.2, 0.2), "test": 0.3}, "data.test"),
    ],
)
def test_fractions_that_contradict_are_refused(data, key):
    with pytest.raises(RequestError, match=f"^{key}(=| must )") as refused:
        from_config({"data": data})
    assert "\n" not in str(refused.value)


GIVEN = Source(numbered(0, 90, 3), numbered(10_000, 20, 3), ("a", "b", "c"), numbered(20_000, 30, 3))


@pytest.mark.parametrize("settings", [{}, {"validation_from": "given"}, {"validation_from": "test"}])
def test_a_validation_split_of_the_source_is_taken_whole(settings):
    dataset = make_splits(GIVEN, DataConfig(**{"validation": 0} | settings), "x")
    assert [ids(split) for split in dataset.splits.values()] == [
        ids(split) for split in (GIVEN.train, GIVEN.validation, GIVEN.test)
    ]
    assert dataset.validation_from == "given" and dataset.notes == ()


@pytest.mark.parametrize(
    ("settings", "origin", "first", "count"),
    [
        ({"validation": 9}, "train", 0, 9),
        ({"validation": 5, "validation_from": "test"}, "test", 10_000, 5),
        ({"validation_from": "same_as_test"}, "same_as_test", 10_000, 20),
    ],
)
def test_a_study_that_cuts_another_validation_split_says_what_it_leaves(settings, origin, first, count):
    dataset = make_splits(GIVEN, DataConfig(**{"validation": 0} | settings), "x")
    assert dataset.validation_from == origin and len(dataset.validation) == count
    assert set(ids(dataset.validation)) <= set(range(first, first + 90))
    assert dataset.notes == ("left out, because the study cuts another: the data's own validation split of 30 images",)


def test_fractions_pool_the_validation_split_and_kept_classes_and_sizes_reach_it():
    dataset = make_splits(GIVEN, DataConfig(fractions=(0.5, 0.25, 0.25)), "x")
    everything = [each for split in (GIVEN.train, GIVEN.test, GIVEN.validation) for each in ids(split)]
    assert sorted(each for split in dataset.splits.values() for each in ids(split)) == sorted(everything)
    assert (dataset.validation_from, dataset.test_from, dataset.notes) == ("pooled", "pooled", ())
    kept = select_classes(GIVEN, ("c", "a"))
    assert set(kept.validation.labels) == {0, 1} and len(kept.validation) == 20


def test_a_split_that_is_not_given_cannot_be_taken():
    with pytest.raises(RequestError, match=r"^data\.validation_from='given'.* has no validation split of its own"):
        split(100, 20, validation_from="given")
    with pytest.raises(RequestError, match=r"^data\.validation=0\.1.* uses the whole validation split of the source"):
        from_config({"data": {"validation": 0.1, "validation_from": "given"}})
    assert from_config({"select": "val_accuracy", "data": {"validation_from": "given"}}).data.has_validation


def test_the_test_split_may_validate():
    dataset = load_dataset(DataConfig(validation_from="same_as_test"))
    plain = load_dataset(DataConfig(validation=0))
    for split in (dataset.validation, dataset.test):
        np.testing.assert_array_equal(split.images, plain.test.images)
    np.testing.assert_array_equal(dataset.train.images, plain.train.images)
    assert dataset.describe()["validation_from"] == "same_as_test"
    with pytest.raises(RequestError, match=r"^data.validation="):
        from_config({"data": {"validation": 0.1, "validation_from": "same_as_test"}})


def test_only_a_study_with_a_validation_split_selects_by_it():
    for data in (
        *({"validation": 0.1}, {"validation": 5}, {"fractions": [0.6, 0.2, 0.2]}),
        {"validation_from": "same_as_test"},
    ):
        study = from_config({"data": data, "select": "val_loss"})
        assert study.data.has_validation
        assert from_config(study.to_dict()) == study
    assert DataConfig().has_validation and not DataConfig(validation=0).has_validation
    with pytest.raises(RequestError, match=r"^select="):
        from_config({"data": {"validation": 0.0}, "select": "val_loss"})


def test_a_random_split_is_not_the_head_of_the_data():
    taken = ids(split(1000, 10, validation=500).validation)
    assert 400 < np.mean(taken) < 600


def test_stratified_counts_are_scikit_learns():
    digits = load_digits()
    _, expected = train_test_split(digits.target, test_size=0.2, stratify=digits.target)
    dataset = load_dataset(DataConfig(validation=0, stratify=True, test=len(expected) / 1797))
    counts = np.bincount(dataset.test.labels) - np.bincount(expected)
    assert counts.sum() == 0 and np.abs(counts).max() <= 1  # ties between remainders are free
    exact = np.bincount(digits.target) * len(expected) / 1797
    assert np.abs(np.bincount(dataset.test.labels) - exact).max() < 1


@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    share=st.floats(0.01, 0.99),
)
def test_every_class_gets_its_share_within_one(sizes, share):
    labels = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    images = np.zeros((len(labels), 1, 1, 1), np.uint8)
    source = Source(Split(images, labels), Split(images, labels), ("x",) * len(sizes))
    count = round(share * len(labels))
    if not 0 < count < len(labels):
        return
    dataset = make_splits(source, DataConfig(validation=count, stratify=True), "x")
    got = np.bincount(dataset.validation.labels, minlength=len(sizes))
    assert got.sum() == count
    assert np.abs(got - np.array(sizes) * count / len(labels)).max() < 1


@pytest.mark.parametrize(
    ("train", "test", "settings", "taken", "allowed"),
    [
        (100, 20, {"validation": 100}, "100 of 100 examples", "1 to 99, or a share that amounts to so many"),
        (100, 20, {"validation": 0.999}, "100 of 100 examples", "1 to 99, or a share that amounts to so many"),
        (100, 20, {"validation": 0.001}, "0 of 100 examples", "1 to 99, or a share that amounts to so many"),
        (100, 1, {"validation": 1, "validation_from": "test"}, "1 of 1 example", "data of more examples"),
        (100, 20, {"train_examples": 101}, "101 of 100 examples", "1 to 100"),
        (60, None, {"test": 0.001}, "0 of 60 examples", "a share that amounts to 1 to 59 examples"),
        (1, None, {"test": 0.3}, "0 of 1 example", "data of more examples"),
        (8, 2, {"fractions": (0.9, 0.04, 0.06)}, "0 of 9 examples", "shares that give each split at least 1"),
    ],
)
def test_more_than_there_is_or_nothing_is_refused(train, test, settings, taken, allowed):
    key, value = next(iter(settings.items()))
    with pytest.raises(RequestError) as refused:
        split(train, test, **settings)
    assert str(refused.value) == f"data.{key}={value}: the split would take {taken}; use {allowed}"


def test_the_examples_that_validate_are_not_left_to_train():
    with pytest.raises(RequestError, match=r"^data\.train_examples=91.*91 of 90 examples; use 1 to 90$"):
        split(100, 20, validation=10, train_examples=91)


def test_all_train_examples_are_the_whole_split():
    assert len(split(100, 20, train_examples=100).train) == 100


def four_versions(image: np.ndarray) -> list[np.ndarray]:
    """The versions of a gray image [H, W], as they are made one by one with SciPy in two dimensions."""
    height, width = image.shape
    factors = (height / (height - 4), width / (width - 4))
    zoomed = ndimage.zoom(image[2:-2, 2:-2], factors, order=0)
    return [image, np.fliplr(image), zoomed, np.fliplr(zoomed)]


@pytest.mark.parametrize("shape", [(32, 32, 1), (28, 28, 1), (8, 8, 2), (5, 5, 1), (9, 14, 3)])
def test_stored_versions_stand_side_by_side_and_are_scipys(shape):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (7, *shape), np.uint8), rng.integers(0, 9, 7).astype(np.int32)
    stored = flip_zoom(Split(images, labels))
    assert stored.labels.tolist() == np.repeat(labels, 4).tolist()
    assert stored.images.shape == (28, *shape) and stored.images.dtype == np.uint8
    for index, image in enumerate(images):
        for channel in range(shape[-1]):
            versions = stored.images[4 * index : 4 * index + 4, ..., channel]
            np.testing.assert_array_equal(versions, four_versions(image[..., channel]))


@pytest.mark.parametrize("cut", [{"validation": 0.1}, {"fractions": (0.6, 0.2, 0.2)}, {}])
def test_stored_versions_come_after_the_cuts_and_leave_the_test_split(cut):
    plain = load_dataset(DataConfig(**cut, train_examples=(500,)))
    stored = load_dataset(DataConfig(**cut, train_examples=(500,), stored_augment="flip_zoom"))
    counts = plain.describe()["counts"]
    assert counts["train"] == 500
    assert stored.describe()["counts"] == {**counts, "train": 2000, "validation": 4 * counts["validation"]}
    for before, after in ((plain.train, stored.train), (plain.validation, stored.validation)):
        if before is not None:
            np.testing.assert_array_equal(after.images[::4], before.images)
            np.testing.assert_array_equal(after.labels[::4], before.labels)
    np.testing.assert_array_equal(stored.test.images, plain.test.images)
    assert stored.describe()["sha256"] != plain.describe()["sha256"]
    pixels = stored.train.images / 255
    np.testing.assert_allclose([stored.mean[0], stored.std[0]], [pixels.mean(), pixels.std()], rtol=1e-6)
    assert abs(plain.mean[0] - stored.mean[0]) > 1e-3  # a zoom shows fewer of the black pixels at the edge


def test_images_too_small_to_zoom_are_refused():
    with pytest.raises(RequestError, match=r"^data\.stored_augment=.*2x2; use images of at least 5 pixels a side"):
        split(20, 5, stored_augment="flip_zoom")


CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag")


def clothes(test: int | None) -> Source:
    rest = None if test is None else numbered(10_000, test, 9)
    return Source(numbered(0, 300, 9), rest, CLOTHES)


@pytest.mark.parametrize("test", [None, 80])
@given(chosen=st.lists(st.integers(0, 8), min_size=1, unique=True), by_name=st.lists(st.booleans(), min_size=9))
def test_kept_classes_are_numbered_in_the_order_given(test, chosen, by_name):
    source = clothes(test)
    asked = tuple(CLOTHES[c] if named else c for c, named in zip(chosen, by_name, strict=False))
    kept = select_classes(source, asked)
    assert kept.classes == tuple(CLOTHES[c] for c in chosen)
    assert (kept.test is None) == (test is None)
    for before, after in ((source.train, kept.train), (source.test, kept.test)):
        if before is None:
            continue
        expected = [(i, c) for i, c in zip(ids(before), before.labels.tolist(), strict=True) if c in chosen]
        assert after.labels.dtype == np.int32
        assert [(i, chosen[label]) for i, label in zip(ids(after), after.labels, strict=True)] == expected


def test_kept_classes_reach_the_data_set_and_its_description():
    digits = load_digits().target
    dataset = load_dataset(DataConfig(classes=(7, "3"), validation=0.1))
    described = dataset.describe()
    assert described["classes"] == ["7", "3"]
    labels = np.concatenate([part.labels for part in (dataset.train, dataset.validation, dataset.test)])
    assert np.bincount(labels).tolist() == [(digits == 7).sum(), (digits == 3).sum()]
    assert described["sha256"] != load_dataset(DataConfig(classes=("3", 7), validation=0.1)).describe()["sha256"]


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("Sneakers", "Bag"), "'Sneakers': did you mean 'Sneaker'?"),
        (("Bag", 9), "must be 0 to 8, or a name"),
        (("Bag", 8), "must list each class once"),
        (("sneaker",), "'sneaker': did you mean 'Sneaker'?"),
    ],
)
def test_a_class_that_is_not_there_is_refused(classes, words):
    with pytest.raises(RequestError, match=r"^data\.classes(=| must )") as refused:
        select_classes(clothes(80), classes)
    assert words in str(refused.value) and "\n" not in str(refused.value)


TWELVE = tuple(str(number) for number in range(1, 13))


@pytest.mark.parametrize(
    ("names", "asked", "kept"),
    [
        (TWELVE, (1, 2), ("1", "2")),
        (TWELVE, ("10", 12), ("10", "12")),
        (("cat", "2", "dog"), (2, 0), ("2", "cat")),
        (("cat", "-1", "dog"), (1, 2), ("-1", "dog")),
    ],
)
def test_a_name_wins_over_a_place(names, asked, kept):
    source = Source(numbered(0, 120, len(names)), None, names)
    assert select_classes(source, asked).classes == kept


@pytest.mark.parametrize(
    ("names", "asked", "words"),
    [
        (TWELVE, 0, "no class has that name; use 1, 2"),
        (("07", "08", "09"), 7, "no class has that name; did you mean '07'? Use 07, 08, 09"),
        (("cat", "01", "dog"), 1, "no class has that name; did you mean '01'?"),
        (("5", "6", "7"), 2, "no class has that name; use 5, 6, 7"),
    ],
)
def test_a_number_that_could_be_a_name_or_a_place_is_refused(names, asked, words):
    with pytest.raises(RequestError, match=rf"^data\.classes={asked}: ") as refused:
        select_classes(Source(numbered(0, 120, len(names)), None, names), (asked,))
    assert words in str(refused.value)


def test_classes_without_examples_are_refused():
    source = Source(numbered(0, 20, 2), numbered(10_000, 5, 1), ("a", "b", "c"))
    with pytest.raises(RequestError, match="no training example"):
        select_classes(source, ("c",))
    with pytest.raises(RequestError, match="no test example"):
        select_classes(source, ("b",))


@pytest.mark.parametrize("classes", [(-1,), (1.5,), ("",), (True,), ("a", "a")])
def test_a_class_is_a_name_or_a_number(classes):
    with pytest.raises(RequestError, match=r"^data\.classes(=| must )"):
        from_config({"data": {"classes": classes}})


@given(st.integers(1, 600), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_statistics_are_numpys(count, channels, seed):
    images = np.random.default_rng(seed).integers(0, 256, (count, 3, 2, channels), np.uint8)
    labels = np.zeros(count, np.int32)
    dataset = make_splits(Source(Split(images, labels), Split(images, labels), ("x",)), DataConfig(validation=0), "x")
    pixels = images.reshape(-1, channels) / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(dataset.std, pixels.std(axis=0), rtol=1e-6)
    assert dataset.mean.dtype == dataset.std.dtype == np.float32


def test_statistics_are_those_of_the_final_training_split():
    dataset = load_dataset(DataConfig(validation=0.1, train_examples=(100,)))
    np.testing.assert_allclose(dataset.mean, [dataset.train.images.mean() / 255], rtol=1e-6)


def test_normalization():
    dataset = load_dataset(DataConfig(validation=0))
    x = np.float64(dataset.train.images)
    expected = {
        "unit": x / 255,
        "half": (x / 255 - 0.5) / 0.5,
        "standard": (x / 255 - dataset.mean) / dataset.std,
        "none": x,
    }
    for kind, values in expected.items():
        scale, shift = normalization_map(dataset, kind)
        assert scale.dtype == shift.dtype == np.float32 and scale.shape == shift.shape == (1,)
        np.testing.assert_allclose(x * scale + shift, values, atol=1e-5)
    with pytest.raises(RequestError, match="did you mean 'half'"):
        normalization_map(dataset, "halve")


def test_a_constant_channel_is_centered():
    images = np.full((4, 2, 2, 1), 51, np.uint8)
    part = Split(images, np.zeros(4, np.int32))
    dataset = make_splits(Source(part, part, ("x",)), DataConfig(validation=0), "x")
    scale, shift = normalization_map(dataset, "standard")
    np.testing.assert_allclose(images * scale + shift, 0, atol=1e-6)


def test_digits_are_scikit_learns():
    dataset = load_dataset(DataConfig(validation=0.1, image_size=8))
    assert dataset.describe()["counts"] == {"train": 1294, "validation": 144, "test": 359}
    originals = {image.tobytes(): label for image, label in zip(*load_digits(return_X_y=True), strict=True)}
    for part in (dataset.train, dataset.validation, dataset.test):
        levels = np.rint(part.images.reshape(-1, 64) * (16 / 255))
        assert [originals[image.tobytes()] for image in levels] == part.labels.tolist()
    assert dataset.train.images.max() == 255 and dataset.image_shape == (8, 8, 1)


def test_the_description_is_json_and_changes_with_any_pixel_or_label():
    dataset = load_dataset(DataConfig(validation=0))
    description = dataset.describe()
    assert description["test_from"] == "train" and description["validation_from"] is None
    assert description["classes"] == list("0123456789") and description["image_shape"] == [8, 8, 1]
    assert description == load_dataset(DataConfig(validation=0)).describe()
    images, labels = dataset.train.images.copy(), dataset.test.labels.copy()
    images[5, 0, 0, 0] ^= 1
    labels[7] += 1
    changed = [
        dataclasses.replace(dataset, train=Split(images, dataset.train.labels)),
        dataclasses.replace(dataset, test=Split(dataset.test.images, labels)),
    ]
    fingerprints = {each.describe()["sha256"] for each in (dataset, *changed)}
    assert len(fingerprints) == 3


def test_padding_puts_the_image_in_the_middle_of_zeros():
    image = np.full((1, 2, 3, 2), 9, np.uint8)
    expected = np.zeros((1, 5, 5, 2), np.uint8)
    expected[:, 1:3, 1:4] = 9
    np.testing.assert_array_equal(resize_images(image, 5, "pad"), expected)
    with pytest.raises(RequestError, match=r"^data\.image_size=2.*at least 3"):
        resize_images(image, 2, "pad")


@pytest.mark.parametrize("kind", ["bilinear", "nearest"])
def test_resizing_color_is_pillows(kind):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 6, 3), np.uint8)
    method = Image.Resampling[kind.upper()]
    expected = [np.asarray(Image.fromarray(image).resize((5, 5), method)) for image in images]
    np.testing.assert_array_equal(resize_images(images, 5, kind), expected)


def test_nearest_doubling_repeats_pixels():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 4), np.uint8)
    expected = images.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(resize_images(images, 8, "nearest"), expected)


def test_image_size_reaches_every_split():
    dataset = load_dataset(DataConfig(image_size=10, validation=0.1))
    for part in (dataset.train, dataset.validation, dataset.test):
        assert part.images.shape[1:] == (10, 10, 1)
        assert not part.images[:, 0].any() and part.images[:, 1:9, 1:9].any()


@pytest.mark.parametrize("stratify", [False, True])
@pytest.mark.parametrize("count", [60, 62])
def test_folds_are_those_of_scikit_learn(count, stratify):
    source = Source(numbered(0, count, 3), numbered(10_000, 9, 3), ("a", "b", "c"))
    dataset = make_splits(source, DataConfig(folds=5, stratify=stratify), "x", (7,))
    kind = StratifiedKFold if stratify else KFold
    labels = source.train.labels
    folds = [*kind(5, shuffle=True, random_state=7).split(labels, labels)]
    assert [*dataset.partitions] == [Cut(7, fold, None) for fold in range(5)]
    fewest = min(len(train) for train, _ in folds)
    for (train, validation), partition in zip(folds, dataset.partitions.values(), strict=True):
        assert ids(dataset.pool.take(partition.validation)) == validation.tolist()
        assert set(ids(dataset.pool.take(partition.train))) <= set(train.tolist())
        assert len(partition.train) == fewest >= len(train) - 1
        assert ids(dataset.pool.take(partition.test)) == ids(source.test)
    assert ids(dataset.validation) == folds[0][1].tolist()
    left_out = ("all folds train on 49 images; where there is one more, it is left out",)
    assert dataset.notes == (() if count == 60 else left_out)


@pytest.mark.parametrize(
    "settings", [{"validation": 0.2}, {"fractions": (0.6, 0.2, 0.2)}, {"stored_augment": "flip_zoom"}]
)
def test_each_seed_of_the_split_stream_has_the_splits_of_a_study_of_its_own(settings):
    digits = load_digits()
    images = digits.images.astype(np.uint8)[:300, ..., None]
    source = Source(Split(images, digits.target[:300].astype(np.int32)), None, tuple("0123456789"))
    data = DataConfig(train_examples=(40, 50), **settings)
    dataset = make_splits(source, data, "x", (3, 8))
    assert [*dataset.partitions] == [Cut(seed, None, count) for seed in (3, 8) for count in (40, 50)]
    for cut, partition in dataset.partitions.items():
        alone = make_splits(source, dataclasses.replace(data, train_examples=(cut.train_examples,)), "x", (cut.split,))
        assert alone.pool is None
        for name, split in alone.splits.items():
            found = dataset.pool.take(getattr(partition, name))
            np.testing.assert_array_equal(found.images, split.images)
            np.testing.assert_array_equal(found.labels, split.labels)
        np.testing.assert_array_equal((partition.mean, partition.std), (alone.mean, alone.std))
        np.testing.assert_array_equal(dataset.test_labels[cut.split], alone.test.labels)
        assert dataset.train_size(cut.train_examples) == len(alone.train)
    smaller, larger = (set(dataset.partitions[Cut(3, None, count)].train) for count in (40, 50))
    assert smaller < larger
    first = make_splits(source, dataclasses.replace(data, train_examples=(40,)), "x", (3,))
    assert dataset.describe()["sha256"] == first.describe()["sha256"]  # so that a run may grow by seeds of the split


@pytest.mark.parametrize(
    ("settings", "seeds", "message"),
    [
        ({"folds": 61}, (0,), r"^data\.folds=61: there are 60 training examples; use fewer folds$"),
        (
            {"folds": 30, "stratify": True},
            (0,),
            r"^data\.folds=30: class a has 17 training examples; use at most 17 folds, or data\.stratify=False$",
        ),
        ({"folds": 5, "train_examples": (49,)}, (0,), r"^data\.train_examples=49: .* 49 of 48 examples; use 1 to 48$"),
        ({"validation": 0, "train_examples": (60, None)}, (0,), r"^data\.train_examples=.* 60 and None are the same"),
        ({"validation": 0}, (0, 1), r"^streams\.split=\(0, 1\): all seeds give the same splits: the data gives its"),
    ],
)
def test_splits_that_cannot_differ_as_asked_are_refused(settings, seeds, message):
    source = Source(numbered(0, 60, 3), numbered(10_000, 9, 3), ("a", "b", "c"))
    with pytest.raises(RequestError, match=message):
        make_splits(source, DataConfig(**settings), "x", seeds)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"folds": 1}, r"^data\.folds must be a whole number >= 2 and <= 1000, or None, got 1$"),
        ({"folds": (3, 5)}, r"^data\.folds must be a whole number"),
        (
            {"folds": 5, "validation": 0.1},
            r"^data\.validation=0\.1: each fold of data\.folds validates .* use the default None",
        ),
        ({"folds": 5, "validation": 0}, r"^data\.validation=0: "),
        ({"folds": 5, "validation_from": "test"}, r"^data\.validation_from='test': "),
        ({"folds": 5, "fractions": (0.6, 0.2, 0.2)}, r"^data\.fractions=.* use the default \(\)"),
    ],
)
def test_folds_that_contradict_are_refused(data, message):
    with pytest.raises(RequestError, match=message):
        from_config({"data": data})
