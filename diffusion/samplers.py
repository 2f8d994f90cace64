"""Samplers as tables: ``sampling.sample`` runs them all in one compiled loop. NumPy only.

Every sampler here is linear in x and in the predictions so far. Row r of its table evaluates the network at time t_r,
converts its output to a prediction m_r of x_0, and sets

    x ← W[r, 0] · [x, y, m_r, m_{r-1}, …, z]        where the network is evaluated next
    y ← W[r, 1] · [x, y, m_r, m_{r-1}, …, z]        what a corrector or the next stage starts from

with z new noise. So Algorithm 2, DDIM, DPM-Solver++, UniPC and Heun's method differ only in float64 coefficients, which
short functions compute once on the host.

Notation: time runs t = t_0 > t_1 > … > 0; α_t, σ_t and λ_t = log(α_t/σ_t) as in ``process``; ``R`` rows, ``M``
predictions that a row uses, ``B`` batch.
"""

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from diffusion.spacings import spaced_times
from files.errors import UserError

if TYPE_CHECKING:
    from diffusion.process import DiffusionProcess
    from diffusion.process_config import SamplerConfig

# Positions of a row's coefficients: predictions from M0 on, noise last.
X, Y, M0 = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class Table:
    """A sampler for one process and one choice of times.

    Attributes:
        times: [R] the time at which each row evaluates the network.
        weights: [R, 2, 3 + M] coefficients of x and of y, see the module.
    """

    times: np.ndarray
    weights: np.ndarray

    @property
    def memory(self) -> int:
        """M: predictions that stay in memory, the newest among them."""
        return self.weights.shape[-1] - 3

    @property
    def stochastic(self) -> bool:
        """Whether any row draws noise."""
        return bool(self.weights[..., -1].any())


class _Rows:
    """A table under construction, all zeros."""

    def __init__(self, times: np.ndarray, memory: int) -> None:
        self.times = times
        self.weights = np.zeros((len(times), 2, 3 + memory))

    def table(self) -> Table:
        assert np.isfinite(self.weights).all(), "a sampler's coefficients are not finite"
        return Table(self.times, self.weights)


def ancestral(process: "DiffusionProcess", times: np.ndarray, variance: str = "large") -> Table:
    """Algorithm 2 (Ho et al. 2020) over any subset of times.

    ``variance`` is the reverse process's σ²: ``large`` is β, ``small`` is β̃, the posterior's.
    """
    rows = _Rows(times[:-1], 1)
    for row, (t, s) in enumerate(pairwise(times)):
        of_x0, of_x, posterior = process.posterior(t, s)
        beta = 1.0 - process.alpha_bar[t] / process.alpha_bar[s]
        chosen = 0.0 if s == 0 else beta if variance == "large" else posterior
        rows.weights[row, 0] = of_x, 0.0, of_x0, np.sqrt(chosen)
    return rows.table()


def ddim(process: "DiffusionProcess", times: np.ndarray, eta: float = 0.0) -> Table:
    """DDIM (Eq. 12 with the σ of Eq. 16, Song et al. 2021); η = 0 is deterministic, η = 1 ancestral with β̃."""
    rows = _Rows(times[:-1], 1)
    for row, (t, s) in enumerate(pairwise(times)):
        noise = eta * np.sqrt(process.posterior(t, s).variance)
        direction = np.sqrt(max(0.0, 1.0 - process.alpha_bar[s] - noise**2)) / process.sigma[t]  # of x − α_t m
        rows.weights[row, 0] = direction, 0.0, process.alpha[s] - direction * process.alpha[t], noise
    return rows.table()


def heun(process: "DiffusionProcess", times: np.ndarray) -> Table:
    """Heun's method on dx̄/dσ̄ = ε with x̄ = x/α and σ̄ = σ/α (Karras et al. 2022): two evaluations a step.

    The last step, to t = 0, has σ̄ = 0 at its end, where ε is not defined, and at the start of the first x̄ is nearly
    infinite, which would amplify the difference of two ε a thousandfold: both are DDIM's. The order is still 2.
    """
    euler = ddim(process, times).weights[:, 0]
    kept: list[tuple[int, list, list]] = []
    for step, (t, s) in enumerate(pairwise(times)):
        _, _, of_m, _ = euler[step]
        first = [euler[step][0], 0.0, of_m, 0.0, 0.0]
        if s == 0 or step == 0:
            kept.append((t, first, first))
            continue
        kept.append((t, first, [1.0, 0.0, 0.0, 0.0, 0.0]))  # y ← x at the start of the step
        half = 0.5 * process.alpha[s] * (process.sigma[s] / process.alpha[s] - process.sigma[t] / process.alpha[t])
        at_t, at_s = half / process.sigma[t], half / process.sigma[s]  # ε = (x − α m)/σ, at either end
        y = process.alpha[s] / process.alpha[t] + at_t
        both = [at_s, y, -at_s * process.alpha[s], -at_t * process.alpha[t], 0.0]
        kept.append((s, both, both))
    rows = _Rows(np.array([t for t, _, _ in kept]), 2)
    rows.weights[:] = [[x, y] for _, x, y in kept]
    return rows.table()


def dpm_solver_pp(process: "DiffusionProcess", times: np.ndarray, order: int = 2) -> Table:
    """DPM-Solver++, multistep, of order 2 or 3, with the first steps and the last of lower order (Lu et al. 2022).

    Order 2 is Algorithm 2 (2M). Order 3 integrates the parabola through three predictions exactly; the φ_3 term of the
    authors' code is half of the exact one, which reduces the order to 2.
    """
    if order not in (2, 3):
        raise UserError(f"DPM-Solver++ of order {order} is not known: use 2 or 3")
    rows = _Rows(times[:-1], order)
    lambdas = process.lambdas
    for row in range(len(times) - 1):
        t, s = times[row], times[row + 1]
        nodes = _usable(lambdas, times, row, order)
        if order == 2 and len(nodes) == 2:
            total = -process.alpha[s] * np.expm1(lambdas[t] - lambdas[s])
            back = (lambdas[s] - lambdas[t]) / (2.0 * (nodes[0] - nodes[1]))  # 1/(2r)
            weights = np.array([1.0 + back, -back]) * total
        else:
            weights = _integral(process, lambdas, nodes, t, s)
        rows.weights[row, 0, X] = process.sigma[s] / process.sigma[t]
        rows.weights[row, 0, M0 : M0 + len(weights)] = weights
    return rows.table()


def unipc(process: "DiffusionProcess", times: np.ndarray, order: int = 3) -> Table:
    """UniPC: a predictor of this order and a corrector of one more, at one evaluation a step (Zhao et al. 2023).

    Both integrate the polynomial through their predictions of x_0 exactly (the paper's coefficients solve the same
    equations; its code replaces them by ½ at order 2). There is no correction after the last evaluation.
    """
    rows = _Rows(times[:-1], order + 1)
    lambdas = process.lambdas
    for row in range(len(times) - 1):
        t, s = times[row], times[row + 1]
        corrected = np.zeros(rows.weights.shape[-1])
        corrected[X] = 1.0
        before = _usable(lambdas, times, row - 1, order) if row else np.zeros(0)
        if np.isfinite(before).any():
            # The last step again, now with the prediction at its end as well.
            weights = _integral(process, lambdas, np.array([lambdas[t], *before]), times[row - 1], t)
            corrected[X], corrected[Y] = 0.0, process.sigma[t] / process.sigma[times[row - 1]]
            corrected[M0 : M0 + len(weights)] = weights
        weights = _integral(process, lambdas, _usable(lambdas, times, row, order), t, s)
        rows.weights[row, 1] = corrected
        rows.weights[row, 0] = corrected * process.sigma[s] / process.sigma[t]
        rows.weights[row, 0, M0 : M0 + len(weights)] += weights
    return rows.table()


def _usable(lambdas: np.ndarray, times: np.ndarray, row: int, order: int) -> np.ndarray:
    """λ of the predictions that step ``row`` interpolates, the newest first.

    Only one if an end of the step is infinite; none before the first infinite one.
    """
    nodes = lambdas[times[max(0, row - order + 1) : row + 1]][::-1]
    if not np.isfinite(lambdas[times[row + 1]]):
        return nodes[:1]
    finite = np.isfinite(nodes)
    return nodes[: max(1, int(finite.sum()))]


def _integral(process: "DiffusionProcess", lambdas: np.ndarray, nodes: np.ndarray, t: int, s: int) -> np.ndarray:
    """Weights of predictions at ``nodes`` in x_s − (σ_s/σ_t) x_t = σ_s ∫ e^λ m(λ) dλ over λ_t … λ_s.

    m is the polynomial through the predictions; Gauss-Legendre quadrature is exact to rounding, and unlike the
    usual φ functions loses no accuracy for small steps.
    """
    if len(nodes) == 1:
        return np.array([-process.alpha[s] * np.expm1(lambdas[t] - lambdas[s])])
    points, gauss = np.polynomial.legendre.leggauss(32)
    half = (lambdas[s] - lambdas[t]) / 2.0
    at = lambdas[t] + half * (points + 1.0)
    share = process.alpha[s] * np.exp(at - lambdas[s]) * gauss * half  # σ_s e^λ = α_s e^(λ − λ_s)
    weights = []
    for j, node in enumerate(nodes):
        others = np.delete(nodes, j)
        weights.append(share @ np.prod((at[:, None] - others) / (node - others), axis=1))
    return np.array(weights)


def _note_variance(config: "SamplerConfig", process: "DiffusionProcess") -> list[str]:
    few = 0 < config.sampling_steps < process.num_steps
    if config.variance == "auto" and few:
        return [
            f"ancestral sampling takes the small variance in {config.sampling_steps} of T = {process.num_steps} steps; "
            "the large one (--variance=large) is meant for all of them (--sampling_steps=0)"
        ]
    if config.variance == "large" and few:
        return [
            f"the large variance is meant for all T = {process.num_steps} steps; with {config.sampling_steps} it "
            "leaves noise in the images (CIFAR-10: FID 46 at 100 steps against 11 with the small one); use variance "
            "small, or dpm++, unipc or ddim"
        ]
    return []


class Sampler(NamedTuple):
    """A sampler by name.

    Attributes:
        table: its choices, the process and the times → its table.
        spacing: of its times, unless the user chooses another.
        warnings: about choices that are allowed but rarely useful.
    """

    table: Callable[["SamplerConfig", "DiffusionProcess", np.ndarray], Table]
    spacing: str = "uniform"
    warnings: Callable[["SamplerConfig", "DiffusionProcess"], list[str]] = lambda config, process: []


# Multistep samplers take even steps in λ: evenly in t, the last steps are so long in λ that order 3 is worse than 1.
SAMPLERS: dict[str, Sampler] = {
    "ancestral": Sampler(
        lambda config, process, times: ancestral(process, times, config.variance_at(process.num_steps)),
        warnings=_note_variance,
    ),
    "ddim": Sampler(lambda config, process, times: ddim(process, times, config.eta)),
    "heun": Sampler(lambda config, process, times: heun(process, times)),
    "dpm++": Sampler(lambda config, process, times: dpm_solver_pp(process, times, config.order), spacing="logsnr"),
    "unipc": Sampler(lambda config, process, times: unipc(process, times, config.order), spacing="logsnr"),
}


def make_table(config: "SamplerConfig", process: "DiffusionProcess") -> Table:
    """The coefficients of a sampler for a process.

    Raises:
        UserError: more steps than the process has, or an order that the sampler does not have.
    """
    sampler = SAMPLERS[config.sampler]
    times = spaced_times(process, config.sampling_steps or process.num_steps, config.spacing or sampler.spacing)
    return sampler.table(config, process, times)


def warnings(config: "SamplerConfig", process: "DiffusionProcess") -> list[str]:
    """Warnings about choices that are allowed but rarely useful."""
    return SAMPLERS[config.sampler].warnings(config, process)
