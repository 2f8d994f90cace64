"""Counter-based noise: the published test vectors, and independence of everything but its arguments."""

import numpy as np
import pytest
from keras import ops

from diffusion.process import noise


def _words(*values: int) -> tuple:
    return tuple(ops.convert_to_tensor(np.array([value], np.uint32)) for value in values)


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [  # known answers of Random123, the authors' own implementation, for threefry2x32 of 20 rounds
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_published_words(key: tuple, counter: tuple, expected: tuple) -> None:
    found = noise.threefry(_words(*key), _words(*counter))
    assert tuple(int(np.asarray(word)[0]) for word in found) == expected


def test_an_image_has_its_noise_in_any_company() -> None:
    together = np.asarray(noise.normal(7, np.arange(20), 3, (4, 5, 3)))
    alone = np.asarray(noise.normal(7, np.array([13]), 3, (4, 5, 3)))
    np.testing.assert_allclose(together[13], alone[0], atol=1e-6)  # the last bit of a logarithm is the processor's
    bits = [noise.uniform(7, which, 3, 60) for which in (np.arange(20), np.array([13]))]
    np.testing.assert_array_equal(np.asarray(bits[0])[13], np.asarray(bits[1])[0])
    for other in (noise.normal(8, np.array([13]), 3, (4, 5, 3)), noise.normal(7, np.array([13]), 4, (4, 5, 3))):
        assert np.abs(np.asarray(other) - alone).min() > 0


def test_normal_numbers_are_normal() -> None:
    z = np.asarray(noise.normal(0, np.arange(200), 0, (50, 41))).astype(np.float64)  # 410,000 numbers
    for power, expected in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        spread = {1: 1.0, 2: 2.0, 3: 15.0, 4: 96.0}[power] ** 0.5 / z.size**0.5  # standard error of the moment
        assert abs((z**power).mean() - expected) < 5 * spread
    flat = z.reshape(200, -1)
    assert abs(np.corrcoef(flat)[np.triu_indices(200, 1)]).max() < 6 / flat.shape[1] ** 0.5


def test_uniform_numbers_are_inside_and_even() -> None:
    u = np.asarray(noise.uniform(0, np.arange(1000), 0, 101))
    assert u.shape == (1000, 101)
    assert u.min() > 0 and u.max() < 1
    counts = np.histogram(u, 20, (0, 1))[0]
    assert ((counts - u.size / 20) ** 2 / (u.size / 20)).sum() < 50  # χ² of 19 degrees of freedom: p < 1e-4
