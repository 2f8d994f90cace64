"""Samplers as tables: one compiled loop runs them all.

Every sampler here is linear in what it has seen. Row r of its table evaluates the network at time t_r, turns its
output into a prediction m_r of x_0, and sets

    x ← W[r, 0] · [x, y, m_r, m_{r-1}, …, z]        where the network is evaluated next
    y ← W[r, 1] · [x, y, m_r, m_{r-1}, …, z]        what a corrector or the next stage starts from

with z fresh noise. So Algorithm 2, DDIM, DPM-Solver++, UniPC and Heun's method differ in float64 coefficients that are
made once, on the host, by functions of a few lines.

Notation: time runs t = t_0 > t_1 > … > 0; α_t, σ_t and λ_t = log(α_t/σ_t) as in ``process``; ``R`` rows, ``M`` how many
predictions the table looks back on, ``B`` batch.
"""

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from keras import ops

from diffusion.process import DiffusionProcess
from training.errors import UserError

# Places of a row's coefficients; predictions take the places from M0 on, and noise the last.
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
    """A table in the making, all zeros."""

    def __init__(self, times: np.ndarray, memory: int) -> None:
        self.times = times
        self.weights = np.zeros((len(times), 2, 3 + memory))

    def table(self) -> Table:
        assert np.isfinite(self.weights).all(), "a sampler's coefficients are not finite"
        return Table(self.times, self.weights)


def spaced_times(process: DiffusionProcess, steps: int, spacing: str = "uniform") -> np.ndarray:
    """``steps`` decreasing times from T to 1, and 0: [steps + 1].

    Args:
        process: whose T and λ are meant.
        steps: evaluations' times.
        spacing: ``uniform`` and ``quadratic`` in t (Song et al. 2021, App. D.2), or ``logsnr``, uniform in λ
            (Lu et al. 2022).

    Raises:
        UserError: more steps than times, or an unknown spacing.
    """
    last = process.num_steps
    if not 1 <= steps <= last:
        raise UserError(f"{steps} sampling steps of a process with T = {last}: use 1 to {last}")
    if spacing == "uniform":
        times = np.linspace(last, 1, steps)
    elif spacing == "quadratic":
        times = np.linspace(np.sqrt(last), 1, steps) ** 2
    elif spacing == "logsnr":
        lambdas = _lambda(process)[1:]
        finite = np.isfinite(lambdas)
        wanted = np.linspace(lambdas[finite].min(), lambdas[0], steps)
        times = np.interp(-wanted, -lambdas[finite], np.arange(1, last + 1)[finite])
        times[0] = last
    else:
        raise UserError(f"spacing {spacing!r} is not known: use uniform, quadratic or logsnr")
    return np.append(_distinct(np.rint(times).astype(int)), 0)


def _distinct(times: np.ndarray) -> np.ndarray:
    """Moves times that fell on one another up, as little as keeps them decreasing and all of them."""
    rising = np.maximum.accumulate(times[::-1] - np.arange(len(times))) + np.arange(len(times))
    top = times[0] - np.arange(len(times))
    return np.minimum(rising[::-1], top)


def _lambda(process: DiffusionProcess) -> np.ndarray:
    """[T + 1] half the log of the signal-to-noise ratio."""
    with np.errstate(divide="ignore"):
        return np.log(process.alpha) - np.log(process.sigma)


def ancestral(process: DiffusionProcess, times: np.ndarray, variance: str = "large") -> Table:
    """Algorithm 2 (Ho et al. 2020) over any subset of times.

    ``variance`` is the reverse process's σ²: ``large`` is β, ``small`` is β̃, the posterior's.
    """
    if variance not in ("large", "small"):
        raise UserError(f"variance {variance!r} is not known: use large or small")
    rows = _Rows(times[:-1], 1)
    for row, (t, s) in enumerate(pairwise(times)):
        of_x0, of_x, posterior = process.posterior(t, s)
        beta = 1.0 - process.alpha_bar[t] / process.alpha_bar[s]
        chosen = 0.0 if s == 0 else beta if variance == "large" else posterior
        rows.weights[row, 0] = of_x, 0.0, of_x0, np.sqrt(chosen)
    return rows.table()


def ddim(process: DiffusionProcess, times: np.ndarray, eta: float = 0.0) -> Table:
    """DDIM (Eq. 12 with the σ of Eq. 16, Song et al. 2021); η = 0 is deterministic, η = 1 ancestral with β̃."""
    rows = _Rows(times[:-1], 1)
    for row, (t, s) in enumerate(pairwise(times)):
        noise = eta * np.sqrt(process.posterior(t, s)[2])
        direction = np.sqrt(max(0.0, 1.0 - process.alpha_bar[s] - noise**2)) / process.sigma[t]  # of x − α_t m
        rows.weights[row, 0] = direction, 0.0, process.alpha[s] - direction * process.alpha[t], noise
    return rows.table()


def heun(process: DiffusionProcess, times: np.ndarray) -> Table:
    """Heun's method on dx̄/dσ̄ = ε with x̄ = x/α and σ̄ = σ/α (Karras et al. 2022): two evaluations a step.

    The last step, to t = 0, has σ̄ = 0 at its end, where ε is not defined, and the first begins where x̄ is next to
    infinite, so that the difference of two ε would be blown up a thousandfold: both are DDIM's. Order 2 remains.
    """
    euler = ddim(process, times).weights[:, 0]
    kept: list[tuple[int, list, list]] = []
    for step, (t, s) in enumerate(pairwise(times)):
        _, _, of_m, _ = euler[step]
        first = [euler[step][0], 0.0, of_m, 0.0, 0.0]
        if s == 0 or step == 0:
            kept.append((t, first, first))
            continue
        kept.append((t, first, [1.0, 0.0, 0.0, 0.0, 0.0]))  # y ← where the step began
        half = 0.5 * process.alpha[s] * (process.sigma[s] / process.alpha[s] - process.sigma[t] / process.alpha[t])
        at_t, at_s = half / process.sigma[t], half / process.sigma[s]  # ε = (x − α m)/σ, at either end
        y = process.alpha[s] / process.alpha[t] + at_t
        both = [at_s, y, -at_s * process.alpha[s], -at_t * process.alpha[t], 0.0]
        kept.append((s, both, both))
    rows = _Rows(np.array([t for t, _, _ in kept]), 2)
    rows.weights[:] = [[x, y] for _, x, y in kept]
    return rows.table()


def dpm_solver_pp(process: DiffusionProcess, times: np.ndarray, order: int = 2) -> Table:
    """DPM-Solver++, multistep, of order 2 or 3, with the first steps and the last of lower order (Lu et al. 2022).

    Order 2 is Algorithm 2 (2M). Order 3 integrates the parabola through three predictions exactly; the φ_3 term of the
    authors' code is half of what that asks for, and with it the order is 2.
    """
    if order not in (2, 3):
        raise UserError(f"DPM-Solver++ of order {order} is not known: use 2 or 3")
    rows = _Rows(times[:-1], order)
    lambdas = _lambda(process)
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


def unipc(process: DiffusionProcess, times: np.ndarray, order: int = 3) -> Table:
    """UniPC: a predictor of this order and a corrector of one more, at one evaluation a step (Zhao et al. 2023).

    Both integrate the polynomial through their predictions of x_0 exactly (the paper's coefficients solve the same
    equations; its code replaces them by ½ at order 2). After the last evaluation there is nothing to correct with.
    """
    if order not in (1, 2, 3):
        raise UserError(f"UniPC of order {order} is not known: use 1, 2 or 3")
    rows = _Rows(times[:-1], order + 1)
    lambdas = _lambda(process)
    for row in range(len(times) - 1):
        t, s = times[row], times[row + 1]
        corrected = np.zeros(rows.weights.shape[-1])
        corrected[X] = 1.0
        before = _usable(lambdas, times, row - 1, order) if row else np.zeros(0)
        if np.isfinite(before).any():
            # From where the last step began, now with the prediction at its end as well.
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

    One where an end of the step is at infinity, and none from there on back.
    """
    nodes = lambdas[times[max(0, row - order + 1) : row + 1]][::-1]
    if not np.isfinite(lambdas[times[row + 1]]):
        return nodes[:1]
    finite = np.isfinite(nodes)
    return nodes[: max(1, int(finite.sum()))]


def _integral(process: DiffusionProcess, lambdas: np.ndarray, nodes: np.ndarray, t: int, s: int) -> np.ndarray:
    """Weights of predictions at ``nodes`` in x_s − (σ_s/σ_t) x_t = σ_s ∫ e^λ m(λ) dλ over λ_t … λ_s.

    m is the polynomial through the predictions; Gauss-Legendre quadrature is exact to rounding, and unlike the usual
    φ functions loses nothing for small steps.
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


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """A sampler by name.

    Attributes:
        name: a key of ``SAMPLERS``.
        steps: times at which the network is evaluated (Heun evaluates twice); 0 for all T.
        spacing: of the times: uniform, quadratic or logsnr; "" for the sampler's own: logsnr for the multistep ones.
        variance: of ``ancestral``: large or small.
        eta: of ``ddim``.
        order: of ``dpm++`` and ``unipc``.
        guidance: 1 takes the network as it is; w moves its prediction w times as far from the one without a label
            (Ho & Salimans 2022, whose w is this minus 1).
        clip: keep predictions of x_0 within −1 … 1.
    """

    name: str = "ancestral"
    steps: int = 0
    spacing: str = ""
    variance: str = "large"
    eta: float = 0.0
    order: int = 2
    guidance: float = 1.0
    clip: bool = True

    def table(self, process: DiffusionProcess) -> Table:
        """The coefficients for a process."""
        if self.name not in SAMPLERS:
            raise UserError(f"sampler {self.name!r} is not known: use one of {', '.join(SAMPLERS)}")
        spacing = self.spacing or ("logsnr" if self.name in ("dpm++", "unipc") else "uniform")
        return SAMPLERS[self.name](self, process, spaced_times(process, self.steps or process.num_steps, spacing))

    def warnings(self, process: DiffusionProcess) -> list[str]:
        """What is allowed and hardly ever meant."""
        if self.name == "ancestral" and self.variance == "large" and 0 < self.steps < process.num_steps:
            return [
                f"the large variance is meant for all T = {process.num_steps} steps; with {self.steps} it leaves noise "
                "in the images (CIFAR-10: FID 46 at 100 steps against 11 with the small one); use variance small, "
                "or dpm++, unipc or ddim"
            ]
        return []


SAMPLERS: dict[str, Callable[[SamplerConfig, DiffusionProcess, np.ndarray], Table]] = {
    "ancestral": lambda config, process, times: ancestral(process, times, config.variance),
    "ddim": lambda config, process, times: ddim(process, times, config.eta),
    "heun": lambda config, process, times: heun(process, times),
    "dpm++": lambda config, process, times: dpm_solver_pp(process, times, config.order),
    "unipc": lambda config, process, times: unipc(process, times, config.order),
}

PredictX0 = Callable[[Any, Any], Any]  # (x [B, …], scalar t) → x̂_0 [B, …]
DrawNoise = Callable[[Any], Any]  # row → z [B, …]


def sample(table: Table, predict_x0: PredictX0, draw_noise: DrawNoise, x: Any, num_frames: int = 0) -> tuple[Any, Any]:
    """Runs a table as one loop in the graph.

    Args:
        table: the sampler.
        predict_x0: the network, with guidance and clipping.
        draw_noise: called only where the sampler draws any.
        x: [B, …] x_T, standard normal.
        num_frames: how often to look on, at equal distances; at most once a row.

    Returns:
        The sample [B, …], and [num_frames, B, …] predictions of x_0 on the way (None without frames).
    """
    times = ops.convert_to_tensor(table.times, "int32")
    weights = ops.convert_to_tensor(table.weights, "float32")
    num_rows = len(table.times)
    num_frames = min(num_frames, num_rows)
    frames = [ops.zeros((num_frames, *x.shape), x.dtype)] if num_frames else []

    def row(index: Any, state: tuple) -> tuple:
        x, y, older, frames = state
        predictions = [predict_x0(x, ops.take(times, index)), *older]
        seen = [x, y, *predictions] + ([draw_noise(index)] if table.stochastic else [])
        w = ops.take(weights, index, axis=0)  # [2, 3 + M]
        x, y = (sum(w[target, place] * value for place, value in enumerate(seen)) for target in (0, 1))
        if frames:  # later rows of the same frame overwrite it
            frame = [index * num_frames // num_rows, *(0 for _ in x.shape)]
            frames = [ops.slice_update(frames[0], frame, predictions[0][None])]
        return x, y, predictions[: table.memory - 1], frames

    older = [ops.zeros_like(x) for _ in range(table.memory - 1)]
    x, _, _, frames = ops.fori_loop(0, num_rows, row, (x, x, older, frames))
    return x, frames[0] if frames else None
