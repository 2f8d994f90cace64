"""The forward process q(x_t | x_0) = N(α_t x_0, σ_t² I), from the image at t = 0 to noise at t = ``last``.

One interface covers whole times (Ho et al. 2020), the exploding variance of EDM (Karras et al. 2022), and the straight
path of a rectified flow (Liu et al. 2023). Arrays are float64, tensors are float32. ``B`` batch.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from diffusion.process import schedules
from diffusion.process.targets import TARGETS, Coefficients, Target
from files.errors import UserError
from training.lazy import ops

if TYPE_CHECKING:
    from diffusion.process.config import ProcessConfig
    from diffusion.process.levels import Levels


@dataclasses.dataclass(frozen=True)
class Process:
    """The interface of all processes. A new process is a class with α and σ, and an entry in ``SCHEDULES``.

    Attributes:
        config: every choice.
        target_by_default: what the network predicts if the user does not choose.
        spacing: how a sampler spaces its times, if the sampler has no spacing of its own.
        scales_input: whether the network sees x_t divided by its standard deviation, for every target.
        num_steps: the number of times: T, or infinity.
    """

    config: "ProcessConfig"
    target_by_default: ClassVar[str]
    spacing: ClassVar[str]
    scales_input: ClassVar[bool] = False
    num_steps: ClassVar[float] = math.inf

    @property
    def first(self) -> float:
        """The smallest time at which a network is evaluated."""
        raise NotImplementedError

    @property
    def last(self) -> float:
        """The largest time."""
        raise NotImplementedError

    def coefficients(self, t: Any) -> tuple[Any, Any]:
        """α and σ at times t of any shape; float64 for an array, float32 for a tensor."""
        raise NotImplementedError

    def time_of(self, share: Any) -> Any:
        """A share in [0, 1) → the time; uniform shares give the default distribution of training times."""
        raise NotImplementedError

    def network_time(self, t: Any) -> Any:
        """Times t [B] → the network's input for the time [B], about 1 … 1000."""
        raise NotImplementedError

    def time_of_lambda(self, lambdas: np.ndarray) -> np.ndarray:
        """The time at which log(α/σ) = λ; not rounded, even if the process has whole times only."""
        raise NotImplementedError

    def existing(self, times: np.ndarray) -> np.ndarray:
        """Moves the decreasing times of a sampler to times of the process, all different."""
        return times

    def start(self, levels: "Levels") -> float:
        """Standard deviation of x at the first level, where sampling starts."""
        return 1.0

    @property
    def target(self) -> Target:
        """What the network predicts."""
        return TARGETS[self.config.target_name]

    def lambdas(self, t: np.ndarray) -> np.ndarray:
        """λ_t = log(α_t/σ_t), half the log of the signal-to-noise ratio; infinite at t = 0."""
        alpha, sigma = self.coefficients(np.asarray(t))
        with np.errstate(divide="ignore"):
            return np.log(alpha) - np.log(sigma)

    def at(self, t: Any, like: Any) -> Coefficients:
        """α_t and σ_t at t [B], as float32 [B, 1, …] to multiply ``like``."""
        shape = (-1,) + (1,) * (len(like.shape) - 1)
        alpha, sigma = self.coefficients(ops.convert_to_tensor(t))
        return Coefficients(ops.reshape(alpha, shape), ops.reshape(sigma, shape), self.config.sigma_data)

    def q_sample(self, x0: Any, t: Any, noise: Any) -> Any:
        """x_t = α_t x_0 + σ_t ε (Eq. 4, Ho et al. 2020); t [B]."""
        at = self.at(t, x0)
        return at.alpha * x0 + at.sigma * noise

    def target_of(self, x0: Any, t: Any, noise: Any) -> Any:
        """The target of the network's output, [B, …]."""
        return self.target.of(self.at(t, x0), x0, noise)

    def predict_x0(self, output: Any, x: Any, t: Any) -> Any:
        """x̂_0 [B, …] that follows from the network's output at x_t."""
        return self.target.x0(self.at(t, x), output, x)

    def network_inputs(self, x: Any, t: Any, label: Any | None = None, beside: Sequence[Any] = ()) -> list[Any]:
        """The network's inputs: x_t [B, …, C] with the images ``beside`` as further channels, t [B], and labels [B]."""
        x = self.at(t, x).scale_in * x if self.scales_input or self.target.scales_input else x
        x = ops.concatenate([x, *beside], axis=-1) if beside else x
        return [x, self.network_time(t)] + ([] if label is None else [label])

    def min_snr_weight(self, t: Any, gamma: float) -> Any:
        """[B] weights that turn the target's squared error into min(SNR, γ)·|x_0 − x̂_0|² (Hang et al. 2023).

        min(SNR, γ)/SNR for ε and min(SNR, γ)/(SNR + 1) for v.
        """
        at = self.at(t, t)
        error_of_x0 = self.target.x0_error(at)
        return ops.minimum((at.alpha / at.sigma) ** 2, gamma) * error_of_x0**2

    def check_min_snr(self) -> None:
        """Raises UserError if min-SNR weighting would give a training time the weight 0."""


@dataclasses.dataclass(frozen=True)
class DiscreteProcess(Process):
    """Times are t = 0, 1 … T; α_t = √ᾱ_t and σ_t = √(1 − ᾱ_t)."""

    target_by_default = "eps"
    spacing = "uniform"

    @property
    def num_steps(self) -> int:  # type: ignore[override]
        """T."""
        return self.config.diffusion_steps

    @property
    def first(self) -> float:
        return 1

    @property
    def last(self) -> float:
        return self.num_steps

    @cached_property
    def alpha_bar(self) -> np.ndarray:
        """[T + 1] ᾱ_0 = 1, ᾱ_1, …, ᾱ_T."""
        return schedules.alpha_bar_of(self.config, SCHEDULES[self.config.noise_schedule].betas)

    @cached_property
    def alpha(self) -> np.ndarray:
        """[T + 1] α_t."""
        return np.sqrt(self.alpha_bar)

    @cached_property
    def sigma(self) -> np.ndarray:
        """[T + 1] σ_t."""
        return np.sqrt(1.0 - self.alpha_bar)

    def coefficients(self, t: Any) -> tuple[Any, Any]:
        if isinstance(t, np.ndarray):
            whole = t.astype(int)
            return self.alpha[whole], self.sigma[whole]
        whole = ops.cast(t, "int32")
        tables = (ops.convert_to_tensor(table, "float32") for table in (self.alpha, self.sigma))
        alpha, sigma = (ops.take(table, whole) for table in tables)
        return alpha, sigma

    def time_of(self, share: Any) -> Any:
        if isinstance(share, np.ndarray):
            return np.minimum(1.0 + np.floor(share * self.num_steps), self.num_steps)
        return 1.0 + ops.floor(share * self.num_steps)

    def network_time(self, t: Any) -> Any:
        return ops.cast(t, "float32")

    def time_of_lambda(self, lambdas: np.ndarray) -> np.ndarray:
        times = np.arange(1, self.num_steps + 1)
        there = self.lambdas(times)
        finite = np.isfinite(there)
        return np.interp(-lambdas, -there[finite], times[finite])

    def existing(self, times: np.ndarray) -> np.ndarray:
        """Rounds the times, and moves equal ones up by as little as possible so that all are different."""
        whole, places = np.rint(times).astype(int), np.arange(len(times))
        rising = np.maximum.accumulate(whole[::-1] - places) + places
        return np.minimum(np.maximum(rising, places + 1)[::-1], whole[0] - places)

    def check_min_snr(self) -> None:
        if self.config.zero_terminal_snr:
            raise UserError("--min_snr_gamma gives t = T weight 0 with --zero_terminal_snr: leave one of them out")


@dataclasses.dataclass(frozen=True)
class ExplodingProcess(Process):
    """EDM: α = 1 and σ = t, between σ_min and σ_max; in training, ln σ is normal (Table 1, Karras et al. 2022)."""

    target_by_default = "edm"
    spacing = "karras"
    scales_input = True  # x_t is as large as σ

    @property
    def first(self) -> float:
        return self.config.sigma_min

    @property
    def last(self) -> float:
        return self.config.sigma_max

    def coefficients(self, t: Any) -> tuple[Any, Any]:
        return 0.0 * t + 1.0, 1.0 * t

    def time_of(self, share: Any) -> Any:
        mean, deviation = self.config.p_mean, self.config.p_std
        if isinstance(share, np.ndarray):
            from scipy.special import ndtri

            return np.exp(mean + deviation * ndtri(share))
        return ops.exp(mean + deviation * math.sqrt(2.0) * ops.erfinv(2.0 * share - 1.0))

    def network_time(self, t: Any) -> Any:
        """1000 times the paper's c_noise = ¼ ln σ, plus 1 since the embedding counts from 1."""
        return 1.0 + 250.0 * ops.log(t)

    def time_of_lambda(self, lambdas: np.ndarray) -> np.ndarray:
        return np.exp(-lambdas)

    def start(self, levels: "Levels") -> float:
        return float(levels.sigma[0])


@dataclasses.dataclass(frozen=True)
class FlowProcess(Process):
    """A rectified flow: α = 1 − t and σ = t, 0 < t ≤ 1; in training, t is uniform or logit-normal."""

    target_by_default = "velocity"
    spacing = "trailing"

    @property
    def first(self) -> float:
        return 0.001

    @property
    def last(self) -> float:
        return 1.0

    def coefficients(self, t: Any) -> tuple[Any, Any]:
        return 1.0 - t, 1.0 * t

    def time_of(self, share: Any) -> Any:
        return 1.0 * share

    def network_time(self, t: Any) -> Any:
        return 1000.0 * t

    def time_of_lambda(self, lambdas: np.ndarray) -> np.ndarray:
        return 1.0 / (1.0 + np.exp(lambdas))


class Schedule(NamedTuple):
    """A noise schedule by name.

    Attributes:
        process: the class of its process.
        uses: the fields of ``ProcessConfig`` that only some schedules use, and that this one uses.
        betas: computes β_1 … β_T of a process with whole times.
    """

    process: type[Process]
    uses: tuple[str, ...]
    betas: Callable[["ProcessConfig"], np.ndarray] | None = None


_WHOLE = ("diffusion_steps", "zero_terminal_snr", "time_distribution")
_WITH_ENDS = (*_WHOLE, "beta_start", "beta_end")
SCHEDULES: dict[str, Schedule] = {
    "linear": Schedule(DiscreteProcess, _WITH_ENDS, schedules.linear),
    "linear_unscaled": Schedule(DiscreteProcess, _WITH_ENDS, schedules.linear_unscaled),
    "scaled_linear": Schedule(DiscreteProcess, _WITH_ENDS, schedules.scaled_linear),
    "sigmoid": Schedule(DiscreteProcess, _WITH_ENDS, schedules.sigmoid),
    "cosine": Schedule(DiscreteProcess, _WHOLE, schedules.cosine),
    "sigmoid_alpha_bar": Schedule(DiscreteProcess, _WHOLE, schedules.sigmoid_alpha_bar),
    "edm": Schedule(ExplodingProcess, ("sigma_min", "sigma_max", "p_mean", "p_std")),
    "flow": Schedule(FlowProcess, ("time_distribution",)),
}


def make_process(config: "ProcessConfig") -> Process:
    """The process of a configuration; its own ``config`` is the settled one."""
    return SCHEDULES[config.noise_schedule].process(config.settled())


def _logit_normal(share: Any) -> Any:
    """The sigmoid of a standard normal number: most times are in the middle (Esser et al. 2024)."""
    return ops.sigmoid(math.sqrt(2.0) * ops.erfinv(2.0 * share - 1.0))


# Uniform numbers in (0, 1) → the argument of ``Process.time_of``.
TIME_DISTRIBUTIONS: dict[str, Callable[[Any], Any]] = {"uniform": lambda share: share, "logit_normal": _logit_normal}
