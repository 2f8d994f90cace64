"""The network as samplers see it: a prediction of x_0, guided and clipped. ``B`` batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from diffusion.process.config import SamplerConfig
from diffusion.process.likelihood import parts_of
from diffusion.process.process import Process

# (x [B, …], t [B], the previous prediction of x_0 [B, …]) → the network's output [B, …]
Network = Callable[[Any, Any, Any], Any]
# The same → the outputs of the better and of the worse side: two networks, or one with and without the label
Pair = Callable[[Any, Any, Any], tuple[Any, Any]]


class Prediction(NamedTuple):
    """What a network predicts for x_t.

    Attributes:
        x0: [B, …] x̂_0.
        share: [B, …] position of the variance between β̃ (0) and β (1), on a logarithmic scale; None: not learned.
    """

    x0: Any
    share: Any | None = None


Predict = Callable[[Any, Any, Any], Prediction]  # (x [B, …], scalar t, the previous prediction of x_0 [B, …])


def make_predict(
    network: Network, pair: Pair | None, process: Process, config: SamplerConfig, learned: bool = False
) -> Predict:
    """A prediction of x_0 from a network's output, or from those of a pair.

    Args:
        network: used without guidance.
        pair: used with guidance: the prediction with and without the label (Ho & Salimans 2022), or the predictions of
            a better and a worse network (Karras et al. 2024).
        process: its target is what the network predicts.
        config: strength of the guidance, and clipping.
        learned: whether the output's second half is the position of the variance.
    """

    def predict(x: Any, t: Any, before: Any) -> Prediction:
        times = ops.broadcast_to(t, ops.shape(x)[:1])

        def plain() -> tuple[Any, Any]:
            return parts_of(network(x, times, before), learned)

        def guided() -> tuple[Any, Any]:
            assert pair is not None
            (better, share), (worse, _) = (parts_of(output, learned) for output in pair(x, times, before))
            return _guided(better, worse, config.guidance, config.guidance_rescale), share

        if pair is None or config.guidance == 1.0:
            output, share = plain()
        elif not config.guidance_interval:
            output, share = guided()
        else:  # outside the interval the worse side is not computed
            output, share = ops.cond(_inside(config.guidance_interval, process, t), guided, plain)
        x0 = process.predict_x0(output, x, times)
        return Prediction(ops.clip(x0, -1.0, 1.0) if config.clip else x0, share)

    return predict


def _inside(interval: tuple[float, ...], process: Process, t: Any) -> Any:
    """Whether time t lies in the interval of σ/α that is guided (Kynkäänniemi et al. 2024)."""
    low, high = interval
    alpha, sigma = process.coefficients(t)
    return ops.logical_and(sigma >= low * alpha, sigma <= high * alpha)


def _guided(better: Any, worse: Any, strength: float, rescale: float) -> Any:
    """Away from the worse prediction (Eq. 6, Ho & Salimans 2022); ``rescale``: φ of Lin et al. (2024, §3.4)."""
    guided = worse + strength * (better - worse)
    if not rescale:
        return guided
    axes = tuple(range(1, len(better.shape)))
    ratio = ops.std(better, axis=axes, keepdims=True) / ops.std(guided, axis=axes, keepdims=True)
    return guided * (rescale * ratio + (1.0 - rescale))
