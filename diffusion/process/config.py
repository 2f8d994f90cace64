"""Every choice of the forward process and of sampling: schedule, target, sampler."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Self

from files.errors import UserError
from training.options import Config, option

if TYPE_CHECKING:
    from diffusion.process.targets import Target


OF_TRAINING = ("time_distribution", "p_mean", "p_std")  # change how often times are drawn, not the prediction


@dataclasses.dataclass(frozen=True)
class ProcessConfig(Config):
    """The forward process and what the network predicts."""

    diffusion_steps: int = option(1000, "Number of diffusion steps T; not used by edm and flow.", low=2, high=10**6)
    noise_schedule: str = option(
        "linear",
        "Noise schedule: edm (exploding variance), flow (a straight path), or a schedule of β_t (the others).",
        choices="diffusion.process.process:SCHEDULES",
    )
    zero_terminal_snr: bool = option(
        False, "Rescale the noise schedule so that x_T is pure noise; needs a --target other than eps."
    )
    target: str = option(
        "auto",
        "What the network predicts; auto: edm for --noise_schedule=edm, velocity for flow, eps for the others.",
        choices="diffusion.process.targets:CHOICES",
        former_defaults=("eps",),
    )
    beta_start: float = option(1e-4, "β of the first step; for linear schedules and sigmoid.", low=1e-9, high=0.999)
    beta_end: float = option(0.02, "β of the last step; for linear schedules and sigmoid.", low=1e-9, high=0.999)
    betas: tuple[float, ...] = option((), "β of each step, in place of a schedule.", from_data=True)
    sigma_min: float = option(0.002, "Smallest σ; for edm.", low=1e-9, high=1.0, later=True)
    sigma_max: float = option(80.0, "Largest σ; for edm.", low=1.0, high=1e6, later=True)
    p_mean: float = option(-1.2, "Mean of ln σ in training; for edm.", low=-20.0, high=20.0, later=True)
    p_std: float = option(1.2, "Standard deviation of ln σ in training; for edm.", low=1e-3, high=20.0, later=True)
    sigma_data: float = option(
        0.5, "Standard deviation of the data that --target=edm assumes.", low=1e-3, high=100.0, later=True
    )
    time_distribution: str = option(
        "uniform",
        "Distribution of t in training; not used by edm.",
        choices="diffusion.process.process:TIME_DISTRIBUTIONS",
        later=True,
    )

    def check_used(self) -> None:
        from diffusion.process.process import SCHEDULES

        refuse_unused(self, "noise_schedule", {name: schedule.uses for name, schedule in SCHEDULES.items()})
        if self.sigma_data != 0.5 and self.target_name != "edm":
            raise UserError(f"--sigma_data={self.sigma_data} is used by --target=edm only; leave it out")

    def check(self) -> None:
        pure_noise = self.zero_terminal_snr or self.noise_schedule == "flow"
        if pure_noise and not self._target().tells_x0_from_noise:
            raise UserError(
                "x_T is pure noise (--zero_terminal_snr, --noise_schedule=flow): ε says nothing about x_0 there; "
                "use target v, velocity or x0"
            )
        if self.sigma_max < 2.0 * self.sigma_min:
            raise UserError(
                f"--sigma_min={self.sigma_min} and --sigma_max={self.sigma_max}: the largest must be at least twice "
                "the smallest"
            )
        if self.betas and len(self.betas) != self.diffusion_steps:
            raise UserError(f"{len(self.betas):,} betas of {self.diffusion_steps:,} diffusion steps: each needs one")
        if not all(0 < beta < 1 for beta in self.betas):
            raise UserError(f"betas from {min(self.betas)} to {max(self.betas)}: they must lie between 0 and 1")

    @property
    def target_name(self) -> str:
        """``target`` without ``auto``."""
        from diffusion.process.process import SCHEDULES

        return self.target if self.target != "auto" else SCHEDULES[self.noise_schedule].process.target_by_default

    @property
    def num_steps(self) -> float:
        """T, infinite where time is continuous."""
        from diffusion.process.process import SCHEDULES

        return self.diffusion_steps if "diffusion_steps" in SCHEDULES[self.noise_schedule].uses else math.inf

    def settled(self) -> Self:
        return dataclasses.replace(self, target=self.target_name)

    def __repr__(self) -> str:
        return self.described()

    def _target(self) -> "Target":
        from diffusion.process.targets import TARGETS

        return TARGETS[self.target_name]


def refuse_unused(config: Config, chooser: str, uses: Mapping[str, Collection[str]]) -> None:
    """Raises UserError for a given field that the choice in another field does not use.

    Args:
        config: the configuration; a field with its default value counts as not given.
        chooser: name of the field with the choice.
        uses: choice → names of the fields that only some choices use, and that this one uses.
    """
    chosen = getattr(config, chooser)
    for field in dataclasses.fields(config):
        users = [name for name, used in uses.items() if field.name in used]
        if users and chosen not in users and getattr(config, field.name) != field.default:
            raise UserError(
                f"--{field.name} is not used by --{chooser}={chosen}, only by {', '.join(users)}: leave it out"
            )


@dataclasses.dataclass(frozen=True)
class SamplerConfig(Config):
    """How images are sampled."""

    sampler: str = option(
        "dpm++",
        "Sampler; ancestral is Algorithm 2 of Ho et al. (2020), the others need fewer steps.",
        choices="diffusion.sampling.samplers:SAMPLERS",
    )
    sampling_steps: int = option(
        20, "Number of times t at which the network is evaluated (twice by heun); 0: all of them.", low=0
    )
    spacing: str = option(
        "",
        "Spacing of the sampling times; empty: that of the sampler (logsnr for dpm++ and unipc) or of the process.",
        choices="diffusion.sampling.spacings:CHOICES",
    )
    variance: str = option(
        "auto",
        "Variance of ancestral sampling: β (large), β̃ (small), or learned; auto: learned where the network has learned "
        "it, else large with all T steps and small with fewer.",
        choices=("auto", "large", "small", "learned"),
        former_defaults=("large",),
    )
    eta: float = option(0.0, "η of ddim: 0 is deterministic, 1 ancestral.", low=0.0, high=1.0)
    order: int = option(2, "Order of dpm++ (2 or 3) and unipc (1 to 3).", choices=(1, 2, 3))
    guidance: float = option(1.0, "Classifier-free guidance scale; 1: off.", low=0.0)
    clip: bool = option(True, "Clip predictions of the image to its range.")
    guidance_rescale: float = option(
        0.0,
        "φ of Lin et al. (2024): share of the guided prediction that is rescaled to the standard deviation of the "
        "prediction without guidance; 0: off.",
        low=0.0,
        high=1.0,
        later=True,
    )
    guidance_interval: tuple[float, ...] = option(
        (),
        "LOW,HIGH: noise levels σ/α between which guidance is used; empty: all levels.",
        low=0.0,
        later=True,
    )
    churn: float = option(
        0.0,
        "Amount of noise that heun adds while sampling, S_churn of Karras et al. (2022); 0: deterministic.",
        low=0.0,
        later=True,
    )
    churn_between: tuple[float, ...] = option(
        (0.0, 1e9),
        "S_min,S_max: noise levels σ/α between which heun adds noise.",
        low=0.0,
        later=True,
    )
    churn_noise: float = option(
        1.0, "Standard deviation of the noise that heun adds, S_noise.", low=0.5, high=2.0, later=True
    )

    def __repr__(self) -> str:
        return self.described()

    def check(self) -> None:
        for name, ends in (("guidance_interval", self.guidance_interval), ("churn_between", self.churn_between)):
            nothing = not ends and name == "guidance_interval"
            if not nothing and (len(ends) != 2 or not ends[0] < ends[1]):
                raise UserError(f"--{name}={','.join(map(str, ends))}: two noise levels are needed, LOW,HIGH")

    def check_used(self) -> None:
        from diffusion.sampling.samplers import SAMPLERS

        refuse_unused(self, "sampler", {name: sampler.uses for name, sampler in SAMPLERS.items()})
        if self.guidance == 1.0 and (self.guidance_rescale or self.guidance_interval):
            raise UserError("--guidance_rescale and --guidance_interval need a --guidance other than 1")
        if not self.churn and (self.churn_between != (0.0, 1e9) or self.churn_noise != 1.0):
            raise UserError("--churn_between and --churn_noise need --churn")

    def variance_at(self, num_steps: float) -> str:
        """The variance of ancestral sampling for a process with T = ``num_steps``."""
        few = 0 < self.sampling_steps < num_steps
        return self.variance if self.variance != "auto" else "small" if few else "large"

    def of_process(self, num_steps: float) -> Self:
        """The same without ``auto``; samplers that do not use the variance have the value of earlier versions."""
        variance = self.variance_at(num_steps if self.sampler == "ancestral" else 0)
        return dataclasses.replace(self, variance=variance)
