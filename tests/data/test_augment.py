"""Augmentation: exact moves, SciPy's rotation, the label noise's shares, labels untouched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxnet.data import augment

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.random((50, 6, 5, 2)), jnp.float32)
LABELS = jnp.asarray(RNG.integers(0, 10, 50), jnp.int32)
KEY = jax.random.key(0)


@pytest.mark.source("GB-7.4-augment")
def test_every_image_is_moved_by_whole_pixels_of_its_own():
    moved, labels = augment.shifts(1, fill=-1.0)(KEY, IMAGES, LABELS)
    assert labels is LABELS
    wide = np.pad(IMAGES, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-1)
    seen = set()
    for before, after in zip(wide, np.asarray(moved), strict=True):
        places = [(i, j) for i in range(3) for j in range(3) if np.array_equal(before[i : i + 6, j : j + 5], after)]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) == 9  # each of the nine moves within 50 images
    again, _ = augment.shifts(1, fill=-1.0)(KEY, IMAGES, LABELS)
    np.testing.assert_array_equal(moved, again)
    other, _ = augment.shifts(1, fill=-1.0)(jax.random.key(1), IMAGES, LABELS)
    assert not np.array_equal(moved, other)
    still, _ = augment.shifts(0)(KEY, IMAGES, LABELS)
    np.testing.assert_array_equal(still, IMAGES)


@pytest.mark.source("GB-7.4-augment")
def test_rotations_are_scipys_interpolation_of_turned_coordinates():
    """By the angle that the same key draws; and all angles within the bound."""
    image = IMAGES[0, :, :, 0]
    turned = augment.rotations(30.0)(KEY, image[None], None)[0][0]
    (key,) = jax.random.split(KEY, 1)
    angle = np.deg2rad(30 * float(jax.random.uniform(key, (), jnp.float32, -1, 1)))
    r, c = np.meshgrid(np.arange(6) - 2.5, np.arange(5) - 2.0, indexing="ij")
    at = np.cos(angle) * r - np.sin(angle) * c + 2.5, np.sin(angle) * r + np.cos(angle) * c + 2.0
    expected = ndimage.map_coordinates(np.asarray(image, float), at, order=1, mode="constant")
    inside = (at[0] >= 0) & (at[0] <= 5) & (at[1] >= 0) & (at[1] <= 4)
    np.testing.assert_allclose(np.asarray(turned)[inside], expected[inside], atol=1e-5)
    assert inside.sum() > 15
    colour = augment.rotations(30.0)(KEY, IMAGES[:1], None)[0]
    np.testing.assert_allclose(colour[0, :, :, 0], turned, atol=1e-6)
    np.testing.assert_allclose(augment.rotations(0.0)(KEY, IMAGES, None)[0], IMAGES, atol=1e-5)


def test_a_point_stays_at_its_distance_from_the_centre():
    image = np.zeros((1, 21, 21), np.float32)
    image[0, 10, 17] = 1.0
    keys = jax.random.split(KEY, 40)
    turned = jax.jit(jax.vmap(lambda key: augment.rotations(90.0)(key, jnp.asarray(image), None)[0][0]))(keys)
    r, c = np.meshgrid(np.arange(21) - 10, np.arange(21) - 10, indexing="ij")
    mass = np.asarray(turned).sum((1, 2))
    at_row, at_column = ((np.asarray(turned) * place).sum((1, 2)) / mass for place in (r, c))
    np.testing.assert_allclose(np.hypot(at_row, at_column), 7, atol=0.3)
    angles = np.degrees(np.arctan2(at_row, at_column))
    assert np.all(np.abs(angles) < 92)
    assert angles.min() < -45
    assert angles.max() > 45


def test_flat_rows_are_images_when_their_shape_is_given():
    flat = IMAGES[..., 0].reshape(50, 30)
    for make in (augment.shifts, augment.rotations):
        rows, _ = make(2, shape=(6, 5))(KEY, flat, None)
        images, _ = make(2)(KEY, IMAGES[..., 0], None)
        np.testing.assert_array_equal(rows, images.reshape(50, 30))
        with pytest.raises(ValueError, match=r"for flat rows give shape=\(height, width\)"):
            make(2)(KEY, flat, None)
    with pytest.raises(ValueError, match="got pixels=-1"):
        augment.shifts(-1)


@pytest.mark.source("GB-7.4-input-noise", "GB-7.5.1-label-noise")
def test_noise_has_its_deviation_and_labels_their_rate():
    x = jnp.zeros((200, 500))
    noisy, _ = augment.noise(0.3)(KEY, x, None)
    np.testing.assert_allclose(np.std(noisy), 0.3, rtol=0.02)
    y = jnp.asarray(RNG.integers(0, 5, 20000), jnp.int32)
    _, flipped = augment.label_noise(0.4, 5)(KEY, None, y)
    wrong = np.asarray(flipped) != np.asarray(y)
    np.testing.assert_allclose(wrong.mean(), 0.4, atol=4 * np.sqrt(0.24 / 20000))
    counts = np.bincount((np.asarray(flipped) - np.asarray(y))[wrong] % 5, minlength=5)
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:] / wrong.sum(), 0.25, atol=0.03)
    assert flipped.dtype == y.dtype


def test_chained_transformations_get_keys_of_their_own():
    both = augment.chained(augment.noise(1.0), augment.noise(1.0))
    x, _ = both(KEY, jnp.zeros(1000), None)
    np.testing.assert_allclose(np.std(x), np.sqrt(2), rtol=0.1)  # 2 if the two were the same
