"""Random transformations of a batch in training, for `jn.augmented`.

    transform(key, x, y) -> (x, y)      the same shapes and dtypes

Each example draws its own. A transformation must not change what the label says: a digit may be shifted by some pixels
and turned by some degrees, while mirrored or turned by 180° a 6 becomes a 9 (Goodfellow §7.4).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

Transform = Callable[..., tuple[Any, Any]]


def chained(*transforms: Transform) -> Transform:
    """One after another, each with a key of its own.

    >>> add = lambda key, x, y: (x + 1, y)
    >>> float(chained(add, add)(jax.random.key(0), jnp.zeros(()), None)[0])
    2.0
    """

    def transform(key, x, y):
        for i, each in enumerate(transforms):
            x, y = each(jax.random.fold_in(key, i), x, y)
        return x, y

    return transform


def noise(deviation: Any) -> Transform:
    """x + σ n, n standard normal: σ = `deviation` in the inputs' units, traced or not (Goodfellow §7.4–7.5).

    >>> noise(0.0)(jax.random.key(0), jnp.ones(2), None)[0].tolist()
    [1.0, 1.0]
    """

    def transform(key, x, y):
        return x + jnp.asarray(deviation, x.dtype) * jax.random.normal(key, x.shape, x.dtype), y

    return transform


def label_noise(rate: Any, classes: int) -> Transform:
    """Each label is replaced, with probability ε = `rate`, by one of the other classes (Goodfellow §7.5.1).

    >>> label_noise(1.0, 2)(jax.random.key(0), None, jnp.array([0, 1, 1]))[1].tolist()
    [1, 0, 0]
    """

    def transform(key, x, y):
        step = jax.random.randint(jax.random.fold_in(key, 0), y.shape, 1, classes, y.dtype)
        wrong = jax.random.bernoulli(jax.random.fold_in(key, 1), jnp.asarray(rate, jnp.result_type(float)), y.shape)
        return x, jnp.where(wrong, (y + step) % classes, y)

    return transform


def shifts(pixels: int, *, shape: tuple[int, ...] | None = None, fill: float = 0.0) -> Transform:
    """Images moved by −pixels … pixels, each whole number alike, down and to the right; `fill` enters at the border.

    Args:
        pixels: the farthest move, at least 0.
        shape: (height, width) or (height, width, channels) of one image when x holds flat rows.
        fill: the background's value.

    Raises:
        ValueError: a negative move, or images without height and width.

    >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    >>> moved, _ = shifts(1)(jax.random.key(3), x, None)
    >>> moved.shape
    (1, 3, 3, 1)
    """
    if isinstance(pixels, bool) or not isinstance(pixels, int) or pixels < 0:
        raise ValueError(f"shifts: got pixels={pixels!r}; expected a whole number ≥ 0")

    def moved(key, image):
        padding = [(pixels, pixels), (pixels, pixels), *[(0, 0)] * (image.ndim - 2)]
        wide = jnp.pad(image, padding, constant_values=jnp.asarray(fill, image.dtype))
        start = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
        return jax.lax.dynamic_slice(wide, (*start, *[jnp.zeros((), start.dtype)] * (image.ndim - 2)), image.shape)

    return _of_images("shifts", moved, shape)


def rotations(degrees: Any, *, shape: tuple[int, ...] | None = None, fill: float = 0.0) -> Transform:
    """Images turned about their centre by an angle uniform in ±`degrees`, with linear interpolation.

    Args:
        degrees: the largest angle, traced or not.
        shape, fill: as for `shifts`.

    Raises:
        ValueError: images without height and width.

    >>> x = jnp.ones((1, 3, 3))
    >>> float(rotations(0.0)(jax.random.key(0), x, None)[0][0, 1, 1])
    1.0
    """

    def turned(key, image):
        height, width = image.shape[:2]
        angle = jnp.asarray(degrees, image.dtype) * (jnp.pi / 180) * jax.random.uniform(key, (), image.dtype, -1, 1)
        rows = jnp.arange(height, dtype=image.dtype)[:, None] - (height - 1) / 2
        columns = jnp.arange(width, dtype=image.dtype)[None, :] - (width - 1) / 2
        at = (
            jnp.cos(angle) * rows - jnp.sin(angle) * columns + (height - 1) / 2,
            jnp.sin(angle) * rows + jnp.cos(angle) * columns + (width - 1) / 2,
        )

        def plane(values):
            return map_coordinates(values, at, order=1, mode="constant", cval=fill).astype(values.dtype)

        return jax.vmap(plane, in_axes=2, out_axes=2)(image) if image.ndim == 3 else plane(image)

    return _of_images("rotations", turned, shape)


def _of_images(name: str, change: Callable, shape: tuple[int, ...] | None) -> Transform:
    """change(key, image) for each image of a batch, which may hold flat rows."""

    def transform(key, x, y):
        images = x if shape is None else x.reshape(x.shape[0], *shape)
        if images.ndim not in (3, 4):
            raise ValueError(
                f"{name}: got a batch of shape {x.shape}; expected images (batch, height, width[, channels]): for flat "
                "rows give shape=(height, width)"
            )
        return jax.vmap(change)(jax.random.split(key, x.shape[0]), images).reshape(x.shape), y

    return transform
