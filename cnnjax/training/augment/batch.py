"""Batches: images gathered, augmented and normalized, and their labels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8, UInt32

from cnnjax.study.augmentation import MIXES, own_functions, parse
from cnnjax.training.augment.color import change_brightness, change_contrast
from cnnjax.training.augment.draws import batch_key
from cnnjax.training.augment.geometry import GEOMETRY, gather_moved
from cnnjax.training.augment.mix import cut_mix, cut_out, mix_up
from cnnjax.training.augment.own import call_own
from cnnjax.training.augment.randaugment import rand_augment
from cnnjax.training.losses import Labels


@jax.named_scope("augment")
def gather_batch(
    images_NxHxWxC: UInt8[Array, "N H W C"],
    indices_B: Int[Array, " B"],
    scale_C: Float[Array, " C"],
    shift_C: Float[Array, " C"],
    *,
    augment: tuple[str, ...] = (),
    words_B: UInt32[Array, " B"] | None = None,
) -> Float[Array, "B H W C"]:
    """Returns the images at `indices_B`, augmented, as `pixel * scale + shift`.

    Args:
        images_NxHxWxC: the whole split.
        indices_B: of the images in the batch.
        scale_C: factor per channel.
        shift_C: summand per channel.
        augment: texts of `data.augment`. Those of single images are applied in this order, whatever the order of the
            tuple; for the others see `augmented_batch`.
            'crop:2': a window of the image padded by 2 (by default 4) black pixels; every offset is equally likely.
            'crop:2:reflect': the padding reflects the image at its outermost pixels.
            'flip': left-right with probability 1/2. 'alternating_flip': the same here, see `draws.alternate_flips`.
            'flip_all': left-right, every image.
            'flip_vertical_all': upside down, every image.
            'rotate': by one of `ANGLES` about the center, to the nearest pixel. Pixels from outside the image are zero
            after normalization.
            'randaugment:2:9': see `rand_augment`.
            'brightness:0.4', 'contrast:0.4': see `color`.
            'cutout:8': see `mix.cut_out`; after normalization.
        words_B: a random word per image, required if `augment` is not empty. The top bit decides the flip, 15 bits each
            the row and column of the crop (the probabilities of two offsets differ by less than 1 part in 3,600). The
            word seeds all else.
    """
    asked = dict(map(parse, augment))
    if not asked or words_B is None:
        return _normalize(images_NxHxWxC[indices_B], scale_C, shift_C)
    if set(asked) & set(GEOMETRY):
        pixels, kept = gather_moved(images_NxHxWxC, indices_B, asked, words_B)
    else:
        pixels, kept = images_NxHxWxC[indices_B], None
    if "randaugment" in asked:
        pixels = rand_augment(pixels, words_B, *asked["randaugment"])
    for name, change in (("brightness", change_brightness), ("contrast", change_contrast)):
        if name in asked:
            pixels = change(pixels.astype(jnp.float32), words_B, *asked[name])
    batch = _normalize(pixels, scale_C, shift_C)
    if kept is not None:
        batch = jnp.where(kept[..., None], batch, 0)
    return cut_out(batch, words_B, *asked["cutout"]) if "cutout" in asked else batch


@jax.named_scope("augment")
def augmented_batch(
    images_NxHxWxC: UInt8[Array, "N H W C"],
    labels_N: Int[Array, " N"],
    indices_B: Int[Array, " B"],
    scale_C: Float[Array, " C"],
    shift_C: Float[Array, " C"],
    num_classes: int,
    *,
    augment: tuple[str, ...] = (),
    words_B: UInt32[Array, " B"] | None = None,
) -> tuple[Float[Array, "B H W C"], Labels]:
    """Returns a batch for training: that of `gather_batch`, changed by functions of files and mixed, and its labels.

    The functions are called one after another. Then 'mixup:0.2' or 'cutmix:1' mixes the examples, see `mix`. The labels
    are soft only if an augmentation changes them. The other arguments are those of `gather_batch`.
    """
    images = gather_batch(images_NxHxWxC, indices_B, scale_C, shift_C, augment=augment, words_B=words_B)
    labels = labels_N[indices_B]
    if words_B is None:
        return images, labels
    one_hot = targets = jax.nn.one_hot(labels, num_classes)
    for number, reference in enumerate(own_functions([augment])):
        images, targets = call_own(reference, images, targets, batch_key(words_B, number))
    for name, arguments in map(parse, augment):
        if name in MIXES:
            mix = mix_up if name == "mixup" else cut_mix
            images, targets = mix(images, targets, words_B, *arguments)
    return images, labels if targets is one_hot else targets


def _normalize(pixels: Array, scale_C: Array, shift_C: Array) -> Array:
    return pixels.astype(jnp.float32) * scale_C[None, None, None] + shift_C[None, None, None]
