"""The figures besides FID: by hand, by brute force, by simulation, and what they say where they cannot be had."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from diffusion.fid import frechet as fid
from diffusion.fid import mmd, quality
from diffusion.fid.frechet import Reference
from diffusion.fid.intervals import fid_infinity, interval_of_mean
from diffusion.fid.prdc import precision_recall_density_coverage
from diffusion.fid.quality import Compared
from diffusion.fid.scores import inception_score
from files.errors import UserError


def test_kid_by_hand_and_in_subsets() -> None:
    """The mean over seeded subsets, as it is published; of few images, the unbiased value of all of them."""
    x, y = np.array([[0.0, 1.0], [2.0, 0.0]]), np.array([[1.0, 1.0], [0.0, 0.0]])
    k = lambda a, b: (a @ b / 2 + 1) ** 3  # noqa: E731
    expected = k(x[0], x[1]) + k(y[0], y[1]) - 2 * np.mean([k(a, b) for a in x for b in y])
    assert mmd.kernel_inception_distance(x, y).value == pytest.approx(expected, rel=1e-12)
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(60, 3)), rng.normal(size=(50, 3))
    drawn, values = np.random.default_rng(7), []
    for _ in range(4):
        a, b = (part[drawn.choice(len(part), 20, replace=False)] for part in (real, fake))
        within = [(part.sum() - np.trace(part)) / 380 for part in ((a @ a.T / 3 + 1) ** 3, (b @ b.T / 3 + 1) ** 3)]
        values.append(sum(within) - 2 * ((a @ b.T / 3 + 1) ** 3).mean())
    found = mmd.kernel_inception_distance(real, fake, 7, 4, 20)
    assert found.value == pytest.approx(np.mean(values), rel=1e-9)
    with pytest.raises(UserError, match="too few for KID"):
        mmd.kernel_inception_distance(x[:1], y)


@pytest.mark.parametrize("shift", [0.0, 0.4])
@pytest.mark.parametrize(("counts", "size"), [((80, 80), 1000), ((50, 120), 1000), ((300, 300), 40)])
def test_kids_standard_error_is_that_of_other_images(counts: tuple[int, int], size: int, shift: float) -> None:
    """Of equal distributions and of others, where subsets are all images, all of one side, and few of them."""
    found = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        real, fake = rng.normal(size=(counts[0], 6)), rng.normal(shift, 1.0, size=(counts[1], 6))
        found.append(mmd.kernel_inception_distance(real, fake, seed, 8, size))
    true = np.std([estimate.value for estimate in found], ddof=1)
    error = np.sqrt(np.mean([estimate.deviation**2 for estimate in found if estimate.deviation is not None]))
    assert error == pytest.approx(true, rel=0.3)


def test_kid_without_a_standard_error_says_none() -> None:
    """Of three images, of one subset, and of images that are all the same."""
    x, y = np.random.default_rng(0).normal(size=(2, 30, 4))
    assert mmd.kernel_inception_distance(x[:3], y).deviation is None
    assert mmd.kernel_inception_distance(x, y, subsets=1, size=10).deviation is None
    same = np.tile(x[:1], (20, 1))
    assert mmd.kernel_inception_distance(same, same).deviation is None
    assert mmd.kernel_inception_distance(x, x + 1e-3).deviation is not None


def _kernels(n: int, m: int) -> mmd._Kernels:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(n, 3)), rng.normal(0.5, 1.0, size=(m, 3))
    return mmd._Kernels(*((a @ b.T / 3 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))))


def test_the_parts_of_kids_variance_by_their_sums() -> None:
    """Székely & Rizzo (2014), 3.1, and its form for two sets, entry by entry; Hoeffding's parts from them."""
    n, k = 7, _kernels(7, 7)

    def within(kernel: np.ndarray) -> float:
        total, pairs = 0.0, [(i, j) for i in range(n) for j in range(n) if i != j]
        row = [sum(kernel[i, j] for j in range(n) if j != i) for i in range(n)]
        for i, j in pairs:
            total += (kernel[i, j] - row[i] / (n - 2) - row[j] / (n - 2) + sum(row) / ((n - 1) * (n - 2))) ** 2
        return total / (n * (n - 3))

    def between(kernel: np.ndarray) -> float:
        n, m = kernel.shape
        rest = [
            kernel[i, j] - kernel[i].mean() - kernel[:, j].mean() + kernel.mean() for i in range(n) for j in range(m)
        ]
        return sum(value**2 for value in rest) / ((n - 1) * (m - 1))

    assert mmd._centred_within(k.xx) == pytest.approx(within(k.xx), rel=1e-10)
    assert mmd._centred_between(k.xy) == pytest.approx(between(k.xy), rel=1e-10)
    assert mmd._centred_between(k.xy[:, :4]) == pytest.approx(between(k.xy[:, :4]), rel=1e-10)
    single = []
    for kernel, cross in ((k.xx, k.xy), (k.yy, k.xy.T)):
        means = [sum(kernel[i, j] for j in range(n) if j != i) / (n - 1) - cross[i].mean() for i in range(n)]
        single.append(np.var(means, ddof=1) - within(kernel) * (n - 2) / (n - 1) ** 2 - between(k.xy) / n)
    expected = (*single, within(k.xx), within(k.yy), between(k.xy))
    np.testing.assert_allclose(mmd._variances(k), expected, rtol=1e-9)


def test_kids_standard_error_by_hand() -> None:
    """The variance of 4 and 10 images, also where its estimate is below 0; and the subsets' own part."""
    pairs = 6 / 12 + 8 / 90 + 20 / 40
    assert mmd._Variances(1, 2, 3, 4, 5).of_estimate(4, 10) == pytest.approx(4 / 4 + 8 / 10 + pairs, rel=1e-12)
    assert mmd._Variances(-9, 2, 3, 4, 5).of_estimate(4, 10) == pytest.approx(0.5 * pairs, rel=1e-12)
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(30, 3)), rng.normal(size=(25, 3))
    drawn, values, parts = np.random.default_rng(2), [], []
    for _ in range(5):
        a, b = (part[drawn.choice(len(part), 12, replace=False)] for part in (real, fake))
        k = mmd._Kernels(*((one @ two.T / 3 + 1) ** 3 for one, two in ((a, a), (b, b), (a, b))))
        values.append(mmd._unbiased(k))
        parts.append(mmd._variances(k))
    variance = mmd._Variances(*np.mean(parts, axis=0)).of_estimate(30, 25) + np.var(values, ddof=1) / 5
    found = mmd.kernel_inception_distance(real, fake, 2, 5, 12)
    assert found == pytest.approx((np.mean(values), np.sqrt(variance)), rel=1e-9)
    few = mmd.kernel_inception_distance(real[:4], fake[:4])  # all images, of which four are enough
    k = mmd._Kernels(*((a @ b.T / 3 + 1) ** 3 for a, b in ((real[:4],) * 2, (fake[:4],) * 2, (real[:4], fake[:4]))))
    assert few == pytest.approx((mmd._unbiased(k), np.sqrt(mmd._variances(k).of_estimate(4, 4))), rel=1e-9)
    assert mmd.kernel_inception_distance(real[:3], fake[:3]).deviation is None
    assert mmd.kernel_inception_distance(real[:2], fake[:2]).deviation is None


def test_cmmd_by_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """1000 (E k(x, x') + E k(y, y') − 2 E k(x, y)) over all pairs, k = exp(−|x − y|²/200), in any blocks."""
    rng = np.random.default_rng(0)
    real, fake = rng.normal(100, 5, size=(90, 6)), rng.normal(101, 6, size=(70, 6))
    k = lambda a, b: np.exp(-(cdist(a, b) ** 2) / 200).mean()  # noqa: E731
    expected = 1000 * (k(real, real) + k(fake, fake) - 2 * k(real, fake))
    for block in (2048, 16):
        monkeypatch.setattr(mmd, "_BLOCK", block)
        assert mmd.cmmd(real, fake) == pytest.approx(expected, rel=1e-9)
        assert mmd.cmmd(fake, real) == pytest.approx(expected, rel=1e-9)
        assert mmd.cmmd(real, real.copy()) == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(UserError, match="without images"):
        mmd.cmmd(real, fake[:0])


def test_inception_score_of_certain_and_uncertain_classes() -> None:
    certain = np.tile(np.eye(5) * 100, (20, 1))
    assert inception_score(certain).whole == pytest.approx(5.0)
    assert inception_score(np.zeros((100, 5)))[:2] == pytest.approx((1.0, 0.0))
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    expected = np.exp(np.mean((p * np.log(p / p.mean(axis=0))).sum(axis=1)))
    assert inception_score(np.log(p) + 3.0, 1) == pytest.approx((expected, 0.0, expected), rel=1e-12)
    with pytest.raises(UserError, match="too few for 10 splits"):
        inception_score(np.zeros((5, 5)))


def test_inception_score_of_files_in_the_order_of_their_classes() -> None:
    """Ten classes, sorted: each of ten splits would have one of them, and a score of 1."""
    logits = np.repeat(np.eye(10) * 100, 50, axis=0)
    found = inception_score(logits)
    assert found.value > 8.0 and found.whole == pytest.approx(10.0)
    assert inception_score(logits) == found != inception_score(logits, seed=1)


def test_extrapolation_frees_the_distance_from_its_bias() -> None:
    """Two samples of one distribution: FID is far above the true 0, its extrapolation is not."""
    rng = np.random.default_rng(0)
    reference, fake = Reference.of_features(rng.normal(size=(20000, 20))), rng.normal(size=(400, 20))
    plain = reference.distance(fake)
    assert plain > 0.2 and abs(fid_infinity(reference, fake)) < 0.25 * plain
    assert fid_infinity(reference, fake, 1) == fid_infinity(reference, fake, 1) != fid_infinity(reference, fake, 2)
    with pytest.raises(UserError, match="20 images are too few to extrapolate"):
        fid_infinity(reference, fake[:20])


def test_an_interval_is_around_the_distance_and_factors_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    reference = Reference.of_features(rng.normal(size=(500, 20)))
    monkeypatch.setattr(fid, "_cholesky", lambda cov: pytest.fail("the real side is factored again"))
    widths = []
    for count in (25, 100, 400):
        fake = rng.normal(0.3, 1.2, size=(count, 20))
        distance = reference.distance(fake)
        low, high = interval_of_mean(reference, fake, distance)
        assert 0 <= low < distance < high
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2]
    for few, resamples in ((fake, 1), (fake[:3], 20)):
        with pytest.raises(UserError, match="at least 2 resamples and 4 images"):
            interval_of_mean(reference, few, 1.0, 0, resamples)


def _coverage(width: int, count: int, scale: float, trials: int) -> tuple[float, float]:
    """How often the interval has the mean distance of sets of so many images, and how often the distance itself."""
    rng = np.random.default_rng(0)
    spread = np.arange(1, width + 1) ** -0.5
    reference = Reference.of_features(rng.normal(size=(3000, width)) * spread)
    draw = lambda: 0.1 + rng.normal(size=(count, width)) * spread * scale  # noqa: E731
    mean = np.mean([reference.distance(draw()) for _ in range(5 * trials)])
    covered, inside = [], []
    for seed in range(trials):
        fake = draw()
        distance = reference.distance(fake)
        low, high = interval_of_mean(reference, fake, distance, seed)
        covered.append(low <= mean <= high)
        inside.append(low <= distance <= high)
    return float(np.mean(covered)), float(np.mean(inside))


@pytest.mark.slow
@pytest.mark.parametrize(("width", "count", "scale"), [(20, 400, 1.2), (20, 101, 1.5), (60, 40, 2.0), (60, 600, 1.2)])
def test_an_interval_covers_the_mean_distance(width: int, count: int, scale: float) -> None:
    """95 % of the sets of images have it, and all have their own distance; fewer images than features, too."""
    covered, inside = _coverage(width, count, scale, 200)
    assert 0.91 <= covered <= 1.0 and inside == 1.0


def test_figures_by_name_or_why_there_are_none() -> None:
    """A figure that cannot be had is never left out without a word."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 8)), rng.normal(size=(30, 8))
    names = {"kid": {"kid", "kid_standard_error"}, "prdc": {"precision", "recall", "density", "coverage"},
             "is": {"inception_score", "inception_score_sd", "inception_score_whole"}, "cmmd": {"cmmd"},
             "memorisation": {"authenticity", "copies"}}  # fmt: skip
    found = {name: set(compute(Compared(x, y, y)).figures) for name, compute in quality.METRICS.items()}
    assert found == names
    for lacking in (Compared(None, y, y[:5]), Compared(x, None, None), Compared(x[:1], y, None)):
        for name, compute in quality.METRICS.items():
            figures, notes = compute(lacking)
            assert not figures and len(notes) == 1 and notes[0].startswith("no "), name
    for name, metric in quality.METRICS.items():  # whether it can be had is decided in one place, for both
        a, b = (quality.SideProperties(side, metric.least, True, True, 8) for side in "AB")
        assert not metric.why_not(a, b) and metric.measure(Compared(x, y, y)).figures, name
        assert metric.why_not(a, b._replace(size=metric.least - 1)).startswith(f"it needs {metric.least} images, and B")
        few = metric(Compared(x[: metric.least], y[: metric.least], y[: metric.least]))
        assert few.figures and not any(note.startswith("no ") for note in few.notes), name
    few = quality.METRICS["kid"](Compared(x[:3], y, None))
    assert set(few.figures) == {"kid"} and "no standard error" in few.notes[0]


def test_neighbours_of_many_images_are_those_of_a_subset_that_is_said() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=(20, 3))
    found = quality.METRICS["prdc"](Compared(x, y, None, 3, most=30))
    assert (found.figures["prdc_images_a"], found.figures["prdc_images_b"]) == (30, 20)
    assert "of 30 and 20 images" in found.notes[0]
    assert found == quality.METRICS["prdc"](Compared(x, y, None, 3, most=30))
    assert found.figures != quality.METRICS["prdc"](Compared(x, y, None, 4, most=30)).figures
    whole = quality.METRICS["prdc"](Compared(x, y, None, 3, most=0))
    assert whole == (precision_recall_density_coverage(x, y), ())


def test_fewer_images_than_features_are_said() -> None:
    assert not quality.notes_on_sizes(2048, 50_000, 2048) and not quality.notes_on_sizes(0, 2048, 2048)
    (note,) = quality.notes_on_sizes(50_000, 1000, 2048)
    assert note.startswith("B has 1,000 images, fewer than the 2,048 features") and "KID" in note and "FID∞" in note
    rng = np.random.default_rng(0)
    reference = Reference.of_features(rng.normal(size=(100, 20)))
    assert (
        "line that is extrapolated is not straight"
        in quality.extrapolated(reference, rng.normal(size=(79, 20))).notes[0]
    )
    found = quality.interval(reference, rng.normal(size=(80, 20)), 1.0, 0, 3)
    assert (
        set(found.figures) == {"fid_interval_low", "fid_interval_high"} and "mean FID of sets of 80" in found.notes[0]
    )


def test_why_a_figure_cannot_be_had() -> None:
    """Every reason as it is told, in the order in which they are looked for."""
    a, b = quality.SideProperties("here", 6, True, True, 8), quality.SideProperties("there", 5, True, True, 8)
    score, prdc = quality.METRICS["is"], quality.METRICS["prdc"]
    assert score.why_not(a, b._replace(has_images=False, num_logits=0)) == "there has no images"
    assert score.why_not(a, b._replace(num_logits=0)) == "the extractor has no classes"
    assert score.why_not(a._replace(has_features=False), b._replace(size=10)) == ""
    assert prdc.why_not(a._replace(has_features=False), b) == "here is saved statistics"
    assert quality.saved_statistics(*(side._replace(has_features=False) for side in (a, b))) == (
        "here and there are saved statistics"
    )
    assert quality.saved_statistics(a, b) == ""
    assert prdc.why_not(a, b) == "it needs 6 images, and there has 5"
    assert prdc.why_not(a._replace(size=1234), b._replace(size=6)) == ""
    assert prdc.why_not(a._replace(size=2), b) == "it needs 6 images, and here has 2"
    x = np.random.default_rng(0).normal(size=(5, 2))
    assert prdc(Compared(x, x, None)) == ({}, ("no prdc: it needs 6 images, and A has 5",))
    assert prdc(Compared(x, None, None)).notes == ("no prdc: B is saved statistics",)
    assert score(Compared(None, None, np.zeros((9, 3)))).notes == (
        "no Inception Score: it needs 10 images, and B has 9",
    )
    assert score(Compared(None, None, np.zeros((10, 3)))).figures["inception_score"] == pytest.approx(1.0)


def test_figures_are_those_of_the_measures() -> None:
    """Under their names, with the seed; what is told of KID, of copies, of intervals and of FID∞."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 2)), rng.normal(0.2, 1.0, size=(120, 2))
    kid = mmd.kernel_inception_distance(x, y, 3)
    assert quality.METRICS["kid"](Compared(x, y, None, 3)) == (
        {"kid": kid.value, "kid_standard_error": kid.deviation}, ()
    )  # fmt: skip
    few = quality.METRICS["kid"](Compared(x[:3], y[:3], None))
    assert few.figures == {"kid": mmd.kernel_inception_distance(x[:3], y[:3]).value}
    assert few.notes == ("KID has no standard error: too few images, or all of them alike",)
    score = inception_score(y, seed=4)
    assert quality.METRICS["is"](Compared(None, None, y, 4)).figures == {
        "inception_score": score.value, "inception_score_sd": score.deviation, "inception_score_whole": score.whole
    }  # fmt: skip
    assert quality.METRICS["cmmd"](Compared(x[:50], y[:40], None)).figures == {"cmmd": mmd.cmmd(x[:50], y[:40])}
    copies = quality.METRICS["memorisation"](Compared(x[:50], np.concatenate([x[:10], y[:30] + 9]), None))
    assert (
        copies.figures["copies"] == 0.25 and "assume that A is the set that B's model was trained on" in copies.notes[0]
    )
    reference = Reference.of_features(x)
    found = quality.interval(reference, y[:40], 1.0, 5, 7)
    assert tuple(found.figures.values()) == tuple(interval_of_mean(reference, y[:40], 1.0, 5, 7))
    assert quality.extrapolated(reference, y[:80], 6) == ({"fid_infinity": fid_infinity(reference, y[:80], 6)}, ())
    assert quality.extrapolated(reference, y[:80]).figures["fid_infinity"] == fid_infinity(reference, y[:80], 0)


def test_a_subset_is_drawn_where_there_are_more() -> None:
    """Without repetition and in order; of as many as are asked for, and of 0, all."""
    rows = quality._at_most(5, 8, np.random.default_rng(0))
    assert rows is not None and len(set(rows.tolist())) == 5 and sorted(rows) == list(rows) and rows.max() < 8
    assert quality._at_most(8, 8, np.random.default_rng(0)) is None
    assert quality._at_most(0, 8, np.random.default_rng(0)) is None
    assert len(quality._at_most(1, 2, np.random.default_rng(0))) == 1  # type: ignore[arg-type]
    assert [note[0] for note in quality.notes_on_sizes(1, 2047, 2048)] == ["A", "B"]
