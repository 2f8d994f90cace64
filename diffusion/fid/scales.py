"""Whether a gray has the same value on both sides of a comparison, if pixels have more than 8 bits."""

from diffusion.data.pixel_ranges import Range, is_whole, parse_found, parse_range
from diffusion.fid.image_source import ImageSource, Source
from files.errors import UserError


def check_scales(a: Source, b: Source) -> list[str]:
    """Compares the ranges of black and white of the two sides, if pixels have more than 8 bits.

    Returns:
        A note if one side has a range of its own, and the other has 8 bits or does not say its range.

    Raises:
        UserError: each side has a range of its own: the same value would be two different grays.
    """
    scales = [_scale_of(source) for source in (a, b)]
    if scales[0] == scales[1] or all(scale is None or is_whole(scale) for scale in scales):
        return []
    if None in scales:
        own, other = (b, a) if scales[0] is None else (a, b)
        what = "has pixels of 8 bits as they are" if _is_known(other) else "does not say what it has"
        return [
            f"{_named(own)} has {scales[0] or scales[1]} as black and white, and {_named(other)} {what}: the same gray "
            "may have two values (--range=MIN,MAX puts images on one scale)"
        ]
    low, high = (" and ".join(f"{scale[end]:g}" for scale in scales if scale) for end in (0, 1))
    of_models = [scale for source, scale in zip((a, b), scales, strict=True) if is_of_model(source)]
    remedy = "set --range=MIN,MAX, one for both"
    if len(of_models) == 1 and of_models[0]:
        remedy = f"set --range={of_models[0].as_flag()}, the model's"
    elif of_models:
        remedy = "the two models learned images of different ranges, and cannot be compared"
    raise UserError(f"the two sides have black at {low} and white at {high}: {remedy}")


def _scale_of(source: Source) -> Range | None:
    """Black and white of a side; None for pixels of 8 bits, or if a file does not say it."""
    if isinstance(source, ImageSource):
        return source.range
    about = source.provenance
    try:
        return parse_found(about.get("pixel_range")) or parse_range(str(about.get("range", "auto")))
    except ValueError as error:
        raise UserError(f"saved features or statistics are damaged: {error}; compute them again") from error


def _is_known(source: Source) -> bool:
    """Whether a side without a range surely has pixels of 8 bits: images, or files that we saved."""
    return isinstance(source, ImageSource) or "source" in source.provenance


def _named(source: Source) -> str:
    return source.name if isinstance(source, ImageSource) else "the saved side"


def is_of_model(source: Source) -> bool:
    """Whether a model makes, or made, the images of a side."""
    return "model" in (source.depends_on if isinstance(source, ImageSource) else source.provenance)
