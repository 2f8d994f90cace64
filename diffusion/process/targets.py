"""What a network may predict, for x_t = α x_0 + σ ε with any α and σ. Works on arrays and on tensors."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Coefficients(NamedTuple):
    """Factors of the image and of the noise in x_t.

    Attributes:
        alpha, sigma: α and σ, in a shape that broadcasts with x_t.
        sigma_data: standard deviation of the data, for the targets that need it.
    """

    alpha: Any
    sigma: Any
    sigma_data: float = 0.5

    @property
    def norm(self) -> Any:
        """√(σ² + σ_data² α²): the standard deviation of x_t."""
        return (self.sigma**2 + (self.sigma_data * self.alpha) ** 2) ** 0.5

    @property
    def scale_in(self) -> Any:
        """c_in of Karras et al. (2022): the factor that makes the standard deviation of x_t 1."""
        return 1.0 / self.norm


class Target(NamedTuple):
    """What a network may predict; ``at`` are the coefficients of its time.

    Attributes:
        of: (at, x_0, ε) → the target of the network's output.
        x0: (at, output, x_t) → x̂_0 that follows from the output.
        x0_error: at → the error of x̂_0 if the output's error is 1.
        scales_input: whether the network sees x_t divided by its standard deviation (``Coefficients.scale_in``).
        tells_x0_from_noise: whether x̂_0 follows from the output even if x_t is pure noise.
    """

    of: Callable[[Coefficients, Any, Any], Any]
    x0: Callable[[Coefficients, Any, Any], Any]
    x0_error: Callable[[Coefficients], Any]
    scales_input: bool = False
    tells_x0_from_noise: bool = True


def _skip(at: Coefficients) -> Any:
    """c_skip of Karras et al. (2022), for any α; the paper has α = 1."""
    return at.sigma_data**2 * at.alpha / at.norm**2


def _scale_out(at: Coefficients) -> Any:
    """c_out of the same paper."""
    return at.sigma * at.sigma_data / at.norm


# ``v`` is the one of Salimans & Ho (2022) if α² + σ² = 1; ``velocity`` is dx_t/dt of a straight path (Liu et al. 2023);
# ``edm`` is F of Karras et al. (2022, Eq. 7), whose squared error has the same weight at all σ.
TARGETS: dict[str, Target] = {
    "eps": Target(
        of=lambda at, x0, noise: noise,
        x0=lambda at, output, x: (x - at.sigma * output) / at.alpha,
        x0_error=lambda at: at.sigma / at.alpha,
        tells_x0_from_noise=False,
    ),
    "x0": Target(
        of=lambda at, x0, noise: x0,
        x0=lambda at, output, x: output,
        x0_error=lambda at: 1.0,
    ),
    "v": Target(
        of=lambda at, x0, noise: at.alpha * noise - at.sigma * x0,
        x0=lambda at, output, x: (at.alpha * x - at.sigma * output) / (at.alpha**2 + at.sigma**2),
        x0_error=lambda at: at.sigma / (at.alpha**2 + at.sigma**2),
    ),
    "velocity": Target(
        of=lambda at, x0, noise: noise - x0,
        x0=lambda at, output, x: (x - at.sigma * output) / (at.alpha + at.sigma),
        x0_error=lambda at: at.sigma / (at.alpha + at.sigma),
    ),
    "edm": Target(
        of=lambda at, x0, noise: (x0 - _skip(at) * (at.alpha * x0 + at.sigma * noise)) / _scale_out(at),
        x0=lambda at, output, x: _skip(at) * x + _scale_out(at) * output,
        x0_error=_scale_out,
        scales_input=True,
    ),
}
CHOICES = ("auto", *TARGETS)
