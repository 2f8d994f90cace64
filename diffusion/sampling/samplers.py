"""Samplers as tables: ``loop.sample`` runs them all in one compiled loop. NumPy only.

Every sampler here is linear in x and in the predictions so far. Row r of its table evaluates the network at time t_r,
converts its output to a prediction m_r of x_0, and sets

    x ← W[r, 0] · [x, y, m_r, m_{r-1}, …, z]        the next input of the network
    y ← W[r, 1] · [x, y, m_r, m_{r-1}, …, z]        the start of a corrector, or of the next stage

where z is new noise. So Algorithm 2, DDIM, DPM-Solver++, UniPC and Heun's method differ in float64 coefficients only.
Short functions compute them once, on the host.

Notation: time runs t = t_0 > t_1 > … > t_K = 0; α, σ and λ = log(α/σ) as in ``process``; ``R`` rows, ``M``
predictions that a row uses, ``B`` batch.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from diffusion.process.levels import Levels, posterior
from diffusion.sampling.spacings import spaced_times
from diffusion.sampling.table import M0, SamplerTable, X, Y
from files.errors import UserError

if TYPE_CHECKING:
    from diffusion.process.config import SamplerConfig
    from diffusion.process.process import Process


def _table(times: np.ndarray, weights: np.ndarray, log_variances: np.ndarray | None = None) -> SamplerTable:
    assert np.isfinite(weights).all(), "a sampler's coefficients are not finite"
    return SamplerTable(times, weights, log_variances)


def _zeros(rows: int, memory: int) -> np.ndarray:
    return np.zeros((rows, 2, 3 + memory))


def ancestral(levels: Levels, variance: str = "large") -> SamplerTable:
    """Algorithm 2 (Ho et al. 2020) over any subset of times.

    ``variance`` is the reverse process's σ²: ``large`` is β, ``small`` is the posterior's β̃, and ``learned`` is a value
    between the two that the network predicts (Eq. 15, Nichol & Dhariwal 2021).
    """
    weights, bounds = _zeros(levels.steps, 1), []
    for step in range(levels.steps):
        at = posterior(levels, step, step + 1)
        chosen = {"large": at.beta, "small": at.variance, "learned": 1.0}[variance]
        weights[step, 0] = at.of_x, 0.0, at.of_x0, 0.0 if step == levels.steps - 1 else np.sqrt(chosen)
        bounds.append(np.log([max(at.variance, 1e-30), at.beta]))
    return _table(levels.times[:-1], weights, np.array(bounds) if variance == "learned" else None)


def ddim(levels: Levels, eta: float = 0.0) -> SamplerTable:
    """DDIM (Eq. 12 with the σ of Eq. 16, Song et al. 2021); η = 0 is deterministic, η = 1 ancestral with β̃.

    The levels may also rise, from the image to noise: with η = 0 this is the same path in the other direction.
    """
    weights = _zeros(levels.steps, 1)
    for step in range(levels.steps):
        noise = eta * np.sqrt(posterior(levels, step, step + 1).variance) if eta else 0.0
        to = levels.sigma[step + 1]
        direction = np.sqrt(max(0.0, to**2 - noise**2)) / levels.sigma[step]  # of x − α_t m
        weights[step, 0] = direction, 0.0, levels.alpha[step + 1] - direction * levels.alpha[step], noise
    return _table(levels.times[:-1], weights)


_NEARLY_PURE_NOISE = 100.0  # σ/α


def heun(levels: Levels, raised: Levels | None = None, churn_noise: float = 1.0) -> SamplerTable:
    """Heun's method on dx̄/dσ̄ = ε with x̄ = x/α and σ̄ = σ/α (Algorithm 1, Karras et al. 2022): two evaluations a step.

    Two steps are DDIM's instead; the order is still 2. The last step ends at σ̄ = 0, where ε is not defined. If x_T is
    nearly pure noise, the first step starts at a nearly infinite x̄, which would amplify the difference of the two ε.

    Args:
        levels: where the steps end.
        raised: [K + 1] where the steps begin, after noise was added (Algorithm 2 of the paper); None: ``levels``.
        churn_noise: S_noise, the factor of the added noise.
    """
    raised = raised or levels
    times, rows = [], []
    for step in range(levels.steps):
        t_alpha, t_sigma = raised.alpha[step], raised.sigma[step]
        s_alpha, s_sigma = levels.alpha[step + 1], levels.sigma[step + 1]
        direction = s_sigma / t_sigma
        first = np.array([direction, 0.0, s_alpha - direction * t_alpha, 0.0, 0.0])
        last = np.array([0.0, 0.0, 0.0, 0.0, _noise_between(levels, raised, step + 1) * churn_noise])
        grow = raised.alpha[step + 1] / s_alpha
        times.append(raised.times[step])
        if s_sigma == 0.0 or (step == 0 and t_sigma > _NEARLY_PURE_NOISE * t_alpha):
            rows.append([grow * first + last] * 2)
            continue
        rows.append([first, np.eye(5)[X]])  # y ← x at the start of the step
        half = 0.5 * s_alpha * (s_sigma / s_alpha - t_sigma / t_alpha)
        at_t, at_s = half / t_sigma, half / s_sigma  # ε = (x − α m)/σ, at either end
        both = np.array([at_s, s_alpha / t_alpha + at_t, -at_s * s_alpha, -at_t * t_alpha, 0.0])
        times.append(levels.times[step + 1])
        rows.append([grow * both + last] * 2)
    return _table(np.array(times), np.array(rows))


def _noise_between(levels: Levels, raised: Levels, place: int) -> float:
    """Standard deviation of the noise that raises a level to the raised one; 0 if the two are the same."""
    ratio = raised.alpha[place] / levels.alpha[place]
    return float(np.sqrt(max(0.0, raised.sigma[place] ** 2 - (ratio * levels.sigma[place]) ** 2)))


def _churned(levels: Levels, config: "SamplerConfig", process: "Process") -> Levels:
    """The levels with more noise: σ/α times 1 + γ, γ = min(churn/K, √2 − 1), if it lies in ``churn_between``."""
    low, high = config.churn_between
    lambdas = levels.lambdas[:-1]
    inside = (lambdas <= -np.log(max(low, 1e-300))) & (lambdas >= -np.log(high))
    steps = config.sampling_steps or process.num_steps  # of the whole path; ``levels`` may be only its end
    gamma = np.where(inside, min(config.churn / steps, np.sqrt(2.0) - 1.0), 0.0)
    # No noise is added to x_T, which has the right deviation already, nor beyond the last time.
    times = np.minimum(process.time_of_lambda(lambdas - np.log1p(gamma)), process.last)
    times = np.where((gamma > 0) & (np.arange(len(times)) > 0), times, levels.times[:-1])
    return Levels.of(process, np.append(times if process.num_steps == np.inf else np.rint(times), 0))


def dpm_solver_pp(levels: Levels, order: int = 2) -> SamplerTable:
    """DPM-Solver++, multistep, of order 2 or 3; the first steps and the last one have a lower order (Lu et al. 2022).

    Order 2 is Algorithm 2 (2M). Order 3 integrates the parabola through three predictions exactly. The authors' code
    has half of the exact φ_3 term, which reduces its order to 2.
    """
    if order not in (2, 3):
        raise UserError(f"DPM-Solver++ of order {order} is not known: use 2 or 3")
    weights = _zeros(levels.steps, order)
    lambdas = levels.lambdas
    for step in range(levels.steps):
        nodes = _usable(lambdas, step, order)
        if order == 2 and len(nodes) == 2:
            total = -levels.alpha[step + 1] * np.expm1(lambdas[step] - lambdas[step + 1])
            back = (lambdas[step + 1] - lambdas[step]) / (2.0 * (nodes[0] - nodes[1]))  # 1/(2r)
            factors = np.array([1.0 + back, -back]) * total
        else:
            factors = _integral(levels, nodes, step)
        weights[step, 0, X] = levels.sigma[step + 1] / levels.sigma[step]
        weights[step, 0, M0 : M0 + len(factors)] = factors
    return _table(levels.times[:-1], weights)


def unipc(levels: Levels, order: int = 3) -> SamplerTable:
    """UniPC (Zhao et al. 2023): a predictor of this order, a corrector of one order more, one evaluation a step.

    Predictor and corrector integrate the polynomial through the predictions of x_0 exactly. The paper's coefficients
    solve the same equations; its code uses ½ at order 2. Nothing is corrected after the last evaluation.
    """
    weights = _zeros(levels.steps, order + 1)
    lambdas, sigma = levels.lambdas, levels.sigma
    for step in range(levels.steps):
        corrected = np.zeros(weights.shape[-1])
        corrected[X] = 1.0
        before = _usable(lambdas, step - 1, order) if step else np.zeros(0)
        if np.isfinite(before).any():
            # The previous step again, now also with the prediction at its end.
            factors = _integral(levels, np.array([lambdas[step], *before]), step - 1)
            corrected[X], corrected[Y] = 0.0, sigma[step] / sigma[step - 1]
            corrected[M0 : M0 + len(factors)] = factors
        factors = _integral(levels, _usable(lambdas, step, order), step)
        weights[step, 1] = corrected
        weights[step, 0] = corrected * sigma[step + 1] / sigma[step]
        weights[step, 0, M0 : M0 + len(factors)] += factors
    return _table(levels.times[:-1], weights)


def _usable(lambdas: np.ndarray, step: int, order: int) -> np.ndarray:
    """λ of the predictions that a step interpolates, the newest first.

    Only the newest if an end of the step has an infinite λ; else none that is older than an infinite λ.
    """
    nodes = lambdas[max(0, step - order + 1) : step + 1][::-1]
    if not np.isfinite(lambdas[step + 1]):
        return nodes[:1]
    finite = np.isfinite(nodes)
    return nodes[: max(1, int(finite.sum()))]


def _integral(levels: Levels, nodes: np.ndarray, step: int) -> np.ndarray:
    """Weights of predictions at ``nodes`` in x_s − (σ_s/σ_t) x_t = σ_s ∫ e^λ m(λ) dλ over λ_t … λ_s, from t = t_step.

    m is the polynomial through the predictions. Gauss-Legendre quadrature is exact to rounding; the usual φ functions
    lose accuracy for small steps.
    """
    start, end = levels.lambdas[step : step + 2]
    alpha = levels.alpha[step + 1]
    if len(nodes) == 1:
        return np.array([-alpha * np.expm1(start - end)])
    points, gauss = np.polynomial.legendre.leggauss(32)
    half = (end - start) / 2.0
    at = start + half * (points + 1.0)
    share = alpha * np.exp(at - end) * gauss * half  # σ_s e^λ = α_s e^(λ − λ_s)
    factors = []
    for j, node in enumerate(nodes):
        others = np.delete(nodes, j)
        factors.append(share @ np.prod((at[:, None] - others) / (node - others), axis=1))
    return np.array(factors)


def _note_variance(config: "SamplerConfig", process: "Process") -> list[str]:
    few, most = 0 < config.sampling_steps < process.num_steps, process.num_steps
    if config.variance == "auto" and few and np.isfinite(most):
        return [
            f"ancestral sampling takes the small variance in {config.sampling_steps} of T = {most} steps; "
            "the large one (--variance=large) is meant for all of them (--sampling_steps=0)"
        ]
    if config.variance == "large" and few:
        return [
            f"the large variance is meant for all T steps; with {config.sampling_steps} steps it "
            "leaves noise in the images (CIFAR-10: FID 46 at 100 steps against 11 with the small one); use variance "
            "small, or dpm++, unipc or ddim"
        ]
    return []


class Sampler(NamedTuple):
    """A sampler by name.

    Attributes:
        table: (configuration, process, levels) → its table.
        uses: the fields of ``SamplerConfig`` that only some samplers use, and that this one uses.
        spacing: of its times, if the user chooses none; empty: the process's spacing.
        warnings: about choices that are allowed but rarely useful.
    """

    table: Callable[["SamplerConfig", "Process", Levels], SamplerTable]
    uses: tuple[str, ...] = ()
    spacing: str = ""
    warnings: Callable[["SamplerConfig", "Process"], list[str]] = lambda config, process: []


# Multistep samplers take even steps in λ: with even steps in t, the last ones are so long in λ that order 3 is worse
# than order 1.
SAMPLERS: dict[str, Sampler] = {
    "ancestral": Sampler(
        lambda config, process, levels: ancestral(levels, config.variance_at(process.num_steps)),
        ("variance",),
        warnings=_note_variance,
    ),
    "ddim": Sampler(lambda config, process, levels: ddim(levels, config.eta), ("eta",)),
    "heun": Sampler(
        lambda config, process, levels: heun(levels, _churned(levels, config, process), config.churn_noise),
        ("churn", "churn_between", "churn_noise"),
    ),
    "dpm++": Sampler(lambda config, process, levels: dpm_solver_pp(levels, config.order), ("order",), "logsnr"),
    "unipc": Sampler(lambda config, process, levels: unipc(levels, config.order), ("order",), "logsnr"),
}


def make_levels(config: "SamplerConfig", process: "Process") -> Levels:
    """The levels at which a sampler stops between noise and image.

    Raises:
        UserError: more steps than the process has.
    """
    if not config.sampling_steps and not np.isfinite(process.num_steps):
        raise UserError(
            f"--sampling_steps=0 means all times, and --noise_schedule={process.config.noise_schedule} has infinitely "
            "many: give a number"
        )
    spacing = config.spacing or SAMPLERS[config.sampler].spacing or process.spacing
    return Levels.of(process, spaced_times(process, config.sampling_steps or int(process.num_steps), spacing))


def make_table(config: "SamplerConfig", process: "Process", levels: Levels | None = None) -> SamplerTable:
    """The coefficients of a sampler for a process, at its own levels or at ``levels``.

    Raises:
        UserError: more steps than the process has, or an order that the sampler does not have.
    """
    levels = levels or make_levels(config, process)
    return SAMPLERS[config.sampler].table(config, process, levels)


def warnings(config: "SamplerConfig", process: "Process") -> list[str]:
    """Warnings about choices that are allowed but rarely useful."""
    return SAMPLERS[config.sampler].warnings(config, process)
