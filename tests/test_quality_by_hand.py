"""KID, CMMD and FID∞ where mutation testing found no test: equal counts, two subsets, float32, images all alike."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from diffusion.fid import mmd, quality
from diffusion.fid.frechet import Reference
from diffusion.fid.intervals import fid_infinity
from diffusion.fid.quality import Compared


@pytest.mark.parametrize("counts", [(20, 20), (20, 25)])
@pytest.mark.parametrize("subsets", [2, 3])
def test_kid_is_the_mean_of_the_subsets_that_are_asked_for(counts: tuple[int, int], subsets: int) -> None:
    """Of two subsets, too, and of equally many images; the subsets' own variance is part of the error."""
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(counts[0], 3)), rng.normal(0.3, 1.0, size=(counts[1], 3))
    drawn, values, parts = np.random.default_rng(5), [], []
    for _ in range(subsets):
        a, b = (part[drawn.choice(len(part), 8, replace=False)] for part in (real, fake))
        k = mmd._Kernels(*((one @ two.T / 3 + 1) ** 3 for one, two in ((a, a), (b, b), (a, b))))
        within = [(part.sum() - np.trace(part)) / 56 for part in (k.xx, k.yy)]
        values.append(sum(within) - 2 * k.xy.mean())
        parts.append(mmd._variances(k))
    variance = mmd._Variances(*np.mean(parts, axis=0)).of_estimate(*counts) + np.var(values, ddof=1) / subsets
    found = mmd.kernel_inception_distance(real, fake, 5, subsets, 8)
    assert found == pytest.approx((np.mean(values), np.sqrt(variance)), rel=1e-9)


def test_kid_of_two_sets_that_are_each_one_image() -> None:
    """Numbers of 1e16 and more, whose rounding is no standard error; the two images differ."""
    x, y = np.random.default_rng(0).normal(0, 300.0, size=(2, 1, 8))
    xx, yy, xy = ((float(a[0] @ b[0]) / 8 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    for real, fake in ((x, y), (y, x), (x, -x), (x, 0 * x)):
        assert mmd.kernel_inception_distance(np.tile(real, (20, 1)), np.tile(fake, (20, 1))).deviation is None
    found = mmd.kernel_inception_distance(np.tile(x, (20, 1)), np.tile(y, (30, 1)), 0, 3, 10)
    assert found.value == pytest.approx(xx + yy - 2 * xy, rel=1e-12) and found.deviation is None


def test_features_in_float32_are_computed_in_float64() -> None:
    rng = np.random.default_rng(2)
    real, fake = (rng.normal(1.0, 2.0, size=(count, 16)).astype(np.float32) for count in (30, 25))
    wide = real.astype(np.float64), fake.astype(np.float64)
    assert mmd.kernel_inception_distance(real, fake, 1, 3, 12) == mmd.kernel_inception_distance(*wide, 1, 3, 12)
    assert mmd.cmmd(real, fake) == pytest.approx(mmd.cmmd(*wide), abs=1e-9)


def test_cmmd_of_features_with_large_means() -> None:
    """Each feature has its own mean of a hundred millions, which the squares of distances would not survive."""
    rng = np.random.default_rng(3)
    real, fake = rng.normal(0, 5, size=(30, 3)), rng.normal(1, 6, size=(20, 3))
    k = lambda a, b: np.exp(-(cdist(a, b) ** 2) / 200).mean()  # noqa: E731
    expected = 1000 * (k(real, real) + k(fake, fake) - 2 * k(real, fake))
    means = np.array([1e8, -1e8, 0.0])
    assert mmd.cmmd(real + means, fake + means) == pytest.approx(expected, rel=1e-5)


def test_where_fid_infinity_is_told_to_be_uncertain() -> None:
    """Below four times as many images as features; the figure is there all the same."""
    rng = np.random.default_rng(0)
    reference, fake = Reference.of_features(rng.normal(size=(100, 20))), rng.normal(size=(80, 20))
    assert quality.extrapolated(reference, fake, 3) == ({"fid_infinity": fid_infinity(reference, fake, 3)}, ())
    found = quality.extrapolated(reference, fake[:79], 3)
    assert found.figures == {"fid_infinity": fid_infinity(reference, fake[:79], 3)}
    assert found.notes == (
        "FID∞ of 79 images with 20 features: below 80 images, four times the features, the line that is extrapolated "
        "is not straight",
    )


def test_a_score_of_an_extractor_without_classes() -> None:
    x = np.random.default_rng(0).normal(size=(20, 4))
    assert quality.METRICS["is"](Compared(x, x, None)).notes == ("no Inception Score: the extractor has no classes",)
