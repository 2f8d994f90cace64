"""The forward process and how it is reversed: schedule, target, sampler."""

import dataclasses
from typing import Self

from files.errors import UserError
from training.options import Config, option


@dataclasses.dataclass(frozen=True)
class ProcessConfig(Config):
    """The forward process and what the network predicts."""

    diffusion_steps: int = option(1000, "Number of diffusion steps T.", low=2, high=10**6)
    noise_schedule: str = option("linear", "Noise schedule (of β_t).", choices="diffusion.process:SCHEDULES")
    zero_terminal_snr: bool = option(
        False, "Rescale the noise schedule so that x_T is pure noise; needs --target=v or x0."
    )
    target: str = option("eps", "What the network predicts.", choices="diffusion.process:TARGETS")
    beta_start: float = option(1e-4, "β of the first step; not of cosine.", low=1e-9, high=0.999)
    beta_end: float = option(0.02, "β of the last step; not of cosine.", low=1e-9, high=0.999)
    betas: tuple[float, ...] = option((), "β of each step, in place of a schedule.", from_data=True)

    def check(self) -> None:
        from diffusion.process import TARGETS

        if self.zero_terminal_snr and not TARGETS[self.target].tells_x0_from_noise:
            raise UserError("with a zero terminal SNR, ε says nothing about x_0 at t = T: use target v or x0")
        if self.betas and len(self.betas) != self.diffusion_steps:
            raise UserError(f"{len(self.betas):,} betas of {self.diffusion_steps:,} diffusion steps: each needs one")
        if not all(0 < beta < 1 for beta in self.betas):
            raise UserError(f"betas from {min(self.betas)} to {max(self.betas)}: they must lie between 0 and 1")
        if self.noise_schedule == "cosine" and (self.beta_start, self.beta_end) != (1e-4, 0.02):
            raise UserError("--noise_schedule=cosine has no --beta_start and --beta_end: leave them out")


@dataclasses.dataclass(frozen=True)
class SamplerConfig(Config):
    """How images are sampled."""

    sampler: str = option(
        "dpm++",
        "Sampler; ancestral is Algorithm 2 of Ho et al. (2020), the others need fewer steps.",
        choices="diffusion.samplers:SAMPLERS",
    )
    sampling_steps: int = option(
        20, "Number of times t at which the network is evaluated (twice by heun); 0: all of them.", low=0
    )
    spacing: str = option(
        "",
        "Spacing of the sampling times; empty: logsnr for dpm++ and unipc, else uniform.",
        choices="diffusion.spacings:CHOICES",
    )
    variance: str = option(
        "auto",
        "Variance of ancestral sampling: β (large), β̃ (small), or large with all T steps and small with fewer (auto).",
        choices=("auto", "large", "small"),
    )
    eta: float = option(0.0, "η of ddim: 0 is deterministic, 1 ancestral.", low=0.0, high=1.0)
    order: int = option(2, "Order of dpm++ (2 or 3) and unipc (1 to 3).", choices=(1, 2, 3))
    guidance: float = option(1.0, "Classifier-free guidance scale; 1: off.", low=0.0)
    clip: bool = option(True, "Clip predictions of the image to its range.")

    def variance_at(self, num_steps: int) -> str:
        """The variance of ancestral sampling of a process with T = ``num_steps``."""
        few = 0 < self.sampling_steps < num_steps
        return self.variance if self.variance != "auto" else "small" if few else "large"

    def of_process(self, num_steps: int) -> Self:
        """The same without ``auto``; what other samplers do not look at is as earlier versions had it."""
        variance = self.variance_at(num_steps if self.sampler == "ancestral" else 0)
        return dataclasses.replace(self, variance=variance)
