"""Augmentation on the device: batches are gathered from resident uint8 images, augmented and normalized. Pure jax.

`batch` puts the parts together: `geometry` (flips, crops, rotations), `randaugment`, `color` (brightness and contrast),
`mix` (cutout, mixup, cutmix) and `own` (functions of files). `test_time` is the augmentation of evaluations.
"""
