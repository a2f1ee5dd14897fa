"""What networks read of uint8 images, at test time and, augmented, in training: inside the graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from keras_sbp.lazy import tf
from keras_sbp.utils.io.options import check, option

# Of images (batch, height, width, channels) uint8 and, in training, a seed (2,) int32: the same seed, the same result.
Preprocess = Callable[..., "tf.Tensor"]


def scale(images: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
    """Pixels as float32 in [0, 1]: what the LeNets read. The seed is not used."""
    return tf.cast(images, tf.float32) / 255


def standardize(images: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
    """Each image's pixels with mean 0 and variance 1, float32: what VGG-like reads. The seed is not used."""
    return tf.image.per_image_standardization(images)


@dataclasses.dataclass(frozen=True)
class Shift:
    """`scale`, then shift each image at random; zeros move in."""

    shift: int = option(
        0,
        "Shift each training image at random by up to N pixels in either direction.",
        at_least=0,
        inherited=True,
    )

    def __post_init__(self) -> None:
        check(self)

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        if not self.shift:
            return scale(images)
        count, height, width, pixels = tf.shape(images)[0], images.shape[1], images.shape[2], self.shift
        top, left = tf.unstack(tf.random.stateless_uniform((2, count, 1), seed, 0, 2 * pixels + 1, tf.int32))
        padded = tf.pad(scale(images), [[0, 0], [pixels, pixels], [pixels, pixels], [0, 0]])
        return _gather_pixels(padded, top + tf.range(height), left + tf.range(width))


@dataclasses.dataclass(frozen=True)
class CropAndFlip:
    """`standardize`, then a random crop of each image padded by 4 pixels, a horizontal flip of half of them, cutout.

    Cutout sets a square somewhere in the image to 0 (DeVries and Taylor, 2017).
    """

    cutout: int = option(0, "Side in pixels of the square that cutout sets to 0.", at_least=0, at_most=32)

    def __post_init__(self) -> None:
        check(self)

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
        draws = tf.random.stateless_uniform((3, count, 1), seed) * tf.constant([9.0, 9.0, 2.0])[:, None, None]
        top, left, flip = tf.unstack(tf.cast(draws, tf.int32))
        rows, columns = top + tf.range(height), left + tf.where(flip == 1, tf.range(width)[::-1], tf.range(width))
        padded = tf.pad(standardize(images), [[0, 0], [4, 4], [4, 4], [0, 0]])
        cropped = _gather_pixels(padded, rows, columns)
        return self._cut_out(cropped, seed) if self.cutout else cropped

    def _cut_out(self, images, seed):
        count, height, width, _ = tf.unstack(tf.shape(images))
        sides = tf.cast(tf.stack([height, width])[:, None, None] - self.cutout + 1, tf.float32)
        corners = tf.random.stateless_uniform((2, count, 1), tf.random.experimental.stateless_fold_in(seed, 1)) * sides
        first_row, first_column = tf.unstack(tf.cast(corners, tf.int32))
        rows, columns = tf.range(height) - first_row, tf.range(width) - first_column
        cut = ((rows >= 0) & (rows < self.cutout))[:, :, None] & ((columns >= 0) & (columns < self.cutout))[:, None, :]
        return tf.where(cut[..., None], 0.0, images)


def _gather_pixels(images, rows, columns):
    """Of each image its own rows and columns, (batch, height) and (batch, width) int32."""
    return tf.gather(tf.gather(images, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)
