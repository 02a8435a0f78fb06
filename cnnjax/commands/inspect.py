"""Describes the data and models of a study before training, as text and as a page of tables and figures."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from cnnjax.data import Dataset, load_dataset
from cnnjax.data.findings import examine
from cnnjax.data.normalization import affine_map
from cnnjax.models.conv import pointwise
from cnnjax.models.conv.methods import choose, resolve
from cnnjax.models.conv.windows import Window
from cnnjax.models.specs import Conv, Layer, LayerRow, Residual
from cnnjax.models.summary import check_fits, describe_network, layer_table
from cnnjax.report import html
from cnnjax.report.sections import data
from cnnjax.report.sections.data_rules import check_data
from cnnjax.report.tables import Table
from cnnjax.report.theme import file_name
from cnnjax.study import augmentation, own_code
from cnnjax.study.schema import Study
from cnnjax.training.augment.batch import augmented_batch
from cnnjax.training.augment.own import check_augmentations
from cnnjax.training.devices import pin_settings
from cnnjax.utils.paths import make_folder

_BYTES = 4  # of a float32
_SHOWN = ("kernel_size", "padding", "window")  # arguments of layers, also at their defaults
_IMAGES, _DRAWS = 10, 4  # shown of the augmentation
_KINDS = {
    **{"model": "text", "layer": "text", "output": "text", "computed as": "text"},
    **dict.fromkeys(("layers", "parameters", "forward flops", "activation bytes", "parameter bytes"), "count"),
}


def inspect_study(study: Study, folder: Path) -> str:
    """Describes the data and the models of a study, without training.

    Args:
        study: the study.
        folder: receives the page index.html, its figures as SVG and PNG, and its tables as CSV.

    Returns:
        The description as text, and the path of the page.

    Raises:
        RequestError: the data is missing, a model is unknown or does not fit the images, or `folder` is a file.
    """
    pin_settings()
    own_code.prepare(study.code, study.models)
    augmentation.load_functions(study.data.augment)
    dataset = load_dataset(study.data, study.split_seeds)
    for name in study.models:
        with own_code.blamed("models", name):
            check_fits(name, dataset.image_shape, len(dataset.classes))
    augmentation.check_fits(study.data.augment, study.data.test_time_augment, dataset.image_shape)
    check_augmentations(study, dataset.image_shape, len(dataset.classes))
    make_folder("--output", folder)
    of_data = data.tables(dataset, study.data.normalization)
    of_models = model_tables(study, dataset)
    found = check_data(examine(dataset), dataset.classes)
    sections = [
        html.Section("data", "Data", of_data, data.figures(dataset, _augmented(study, dataset)), dataset.notes),
        html.Section("models", "Models", of_models),
    ]
    title, heading = f"{dataset.name}: data and models", f"Data and models of a study of {dataset.name}"
    page = html.render(title, heading, sections, findings=found, facts=_facts(study, dataset))
    index = html.write(folder, page, sections)
    findings = ["\n".join(f"{one.severity}: {one.name}: {one.sentence}" for one in found)] if found else []
    return "\n\n".join([_headline(study, dataset), *findings, *map(_text, [*of_data, *of_models]), str(index)])


def model_tables(study: Study, dataset: Dataset) -> list[Table]:
    """Returns a table of the models, and a table of the layers of each model whose last row is their sum."""
    frames = dict(_layers(study, dataset))
    totals = [{"model": name, "layers": len(frame) - 1} | _sums(frame[:-1]) for name, frame in frames.items()]
    memory = "Memory is float32: activations of one image (every layer's output) and parameters, in bytes."
    note = f"For one image of {_shape(dataset.image_shape)}. {memory}"
    tables = [Table("models", "Models", note, pd.DataFrame(totals), kinds=_KINDS)]
    for name, frame in frames.items():
        note = f"Forward flops: an addition and a multiplication for each weight and place of use. {memory}"
        file = "_convolution_".join(map(file_name, name.split(", convolution ")))
        tables.append(Table(f"layers_{file}", f"Layers of {name}", note, frame, (len(frame) - 1,), _KINDS))
    return tables


def _layers(study: Study, dataset: Dataset) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yields the name and the layers of each model, or of each model and convolution method if there are several."""
    for model in study.models:
        for convolution in study.train.convolution:
            network = describe_network(model, len(dataset.classes), dataset.image_shape)
            name = model if len(study.train.convolution) == 1 else f"{model}, convolution {convolution}"
            rows = [
                {
                    "layer": f"{row.part}: {layer_name(row.layer)}" if row.part else layer_name(row.layer),
                    "output": _shape(row.output),
                    "parameters": row.parameters,
                    "forward flops": row.flops,
                    "computed as": _method(row, convolution, study.train.precision),
                    "activation bytes": _BYTES * math.prod(row.output),
                    "parameter bytes": _BYTES * row.parameters,
                }
                for row in layer_table(network, dataset.image_shape)
            ]
            frame = pd.DataFrame(rows)
            total = {"layer": "all", "output": "", "computed as": ""} | _sums(frame)
            yield name, pd.concat([frame, pd.DataFrame([total])], ignore_index=True)


def _method(row: LayerRow, convolution: str, precisions: tuple[str, ...]) -> str:
    """Returns the method that computes a layer's convolution, by the first of the precisions; or nothing."""
    if not isinstance(row.layer, Conv):
        return ""
    *places, channels, features = row.kernel
    if channels == 1 and row.layer.groups > 1:
        return "depthwise"
    layer, kernel = row.layer, (*places, channels, features // row.layer.groups)
    window = Window((layer.stride, layer.stride), (layer.dilation, layer.dilation))
    dtype = jnp.bfloat16 if precisions[0] == "bfloat16" else jnp.float32
    convolution = resolve(convolution, kernel, window, dtype)
    if convolution == "auto" and pointwise.fits(kernel, window):
        return "pointwise"
    return choose(kernel, math.prod(row.output[:2]), convolution, window)


def layer_name(layer: Layer | str) -> str:
    """Returns a layer's kind and arguments, as in `Conv features=16 kernel_size=3 padding=same`; or a part's path."""
    if isinstance(layer, str):
        return layer
    if isinstance(layer, Residual):  # the rows above have its layers
        return "Residual"
    values = [(field.name, getattr(layer, field.name), field.default) for field in dataclasses.fields(layer)]
    shown = (f"{name}={value}" for name, value, default in values if name in _SHOWN or value != default)
    return " ".join([type(layer).__name__, *shown])


def _sums(frame: pd.DataFrame) -> dict[str, int]:
    numbers = frame[["parameters", "forward flops", "activation bytes", "parameter bytes"]]
    return {str(name): int(value) for name, value in numbers.sum().items()}


def _augmented(study: Study, dataset: Dataset) -> dict[str, np.ndarray]:
    """Returns training images, and below them their augmentations, by the name of each augmentation of the study."""
    count = min(_IMAGES, len(dataset.train))
    stored, labels = dataset.train.images[:count], dataset.train.labels[:count]
    # As in training: normalized, because some augmentations see such images.
    scale, shift = affine_map(dataset.mean, dataset.std, study.data.normalization[0])
    images_and_labels = jnp.asarray(stored), jnp.asarray(labels)
    constants = jnp.asarray(scale), jnp.asarray(shift), len(dataset.classes)
    found = {}
    for augment in filter(None, study.data.augment):
        rows = [stored]
        for key in jax.random.split(jax.random.key(0), _DRAWS):
            words = jax.random.bits(key, (count,))
            images, _ = augmented_batch(
                *images_and_labels, jnp.arange(count), *constants, augment=augment, words_B=words
            )
            pixels = (np.asarray(images) - shift) / scale
            rows.append(np.rint(pixels.clip(0, 255)).astype(np.uint8))
        found["+".join(augment)] = np.stack(rows)
    return found


def _facts(study: Study, dataset: Dataset) -> list[tuple[str, str]]:
    counts = [(f"{len(split):,}", f"{name} images") for name, split in dataset.splits.items()]
    shape = (_shape(dataset.image_shape), f"{dataset.train.images.dtype} pixels")
    networks = (str(len(study.models)), "model" if len(study.models) == 1 else "models")
    return [*counts, (str(len(dataset.classes)), "classes"), shape, networks]


def _headline(study: Study, dataset: Dataset) -> str:
    facts = ", ".join(f"{value} {what}" for value, what in _facts(study, dataset))
    augmented = ", ".join(augmentation.levels(study.data.augment))
    how = f"normalization {', '.join(study.data.normalization)}, augmentation {augmented}"
    return "\n".join([f"{dataset.name}: {facts}", how, *dataset.notes])


def _text(table: Table) -> str:
    return f"{table.title}\n{table.text()}"


def _shape(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))
