"""The method's choices, as its author's code makes them and as they should be made."""

import dataclasses
from typing import Any

from training.errors import UserError


@dataclasses.dataclass(frozen=True)
class Choices:
    """Where the two presets differ; the defaults are those of ``corrected``.

    Attributes:
        last_layer: of the hidden states used, counted down from the encoder's last; the author's code is one off.
        scaling: of the features, see ``fit_scaling``.
        distance: between features, see ``distances``.
        init: of the t-SNE.
        fit_rows: ``train``; ``all``: the layout has seen validation and test rows too.
        rectangle: ``smallest``, or ``mistaken`` as the library's that the author used.
        pixels: ``bins``, or ``points`` as the author's.
        z_norm: ``train``: by the training images' mean and deviation; ``batch``: by those of each batch.
        bn_mode: of the extractor: ``frozen``, or ``batch`` as when a network is left in training mode.
        early_stopping: weights of the best validation accuracy; otherwise of the last epoch.
    """

    last_layer: int = 0
    scaling: str = "standardize"
    distance: str = "correlation"
    init: str = "pca"
    fit_rows: str = "train"
    rectangle: str = "smallest"
    pixels: str = "bins"
    z_norm: str = "train"
    bn_mode: str = "frozen"
    early_stopping: bool = True

    def layers(self, depth: int, count: int = 6) -> list[int]:
        """The hidden states of an encoder of ``depth`` layers; never 0, whose [CLS] is the same for every text."""
        last = depth - self.last_layer
        if last < 1:
            raise UserError(f"--last_layer={self.last_layer} of an encoder of {depth} layers: use less than {depth}")
        return list(range(max(1, last - count + 1), last + 1))

    def differences(self, other: "Choices") -> dict[str, Any]:
        """The fields in which ``other`` differs, with its values."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return {name: value for name, value in theirs.items() if value != mine[name]}


PRESETS = {
    "corrected": Choices(),
    "author": Choices(1, "log", "euclidean", "random", "all", "mistaken", "points", "batch", "batch", False),
}
