"""Features of texts and tables as images for frozen ImageNet networks (``PixelMap``: the layout), Llama 3.2 Vision."""

from typing import TYPE_CHECKING, Any

import training  # noqa: F401  before Keras: it sets what TensorFlow reads when it starts

if TYPE_CHECKING:
    from vision_bridge.pixel_map import PixelMap

__all__ = ["PixelMap"]


def __getattr__(name: str) -> Any:
    """Imports ``PixelMap`` at its first use, so that scripts start without scikit-learn."""
    if name == "PixelMap":
        from vision_bridge.pixel_map import PixelMap

        return PixelMap
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
