"""A published classifier as a benchmark asks it: what two sides are compared on is the same."""

import dataclasses
from pathlib import Path

from files.errors import UserError
from text_cls.predictor import Predictor
from training.placement import make_placement


def cutting(folder: Path, max_length: int) -> Predictor:
    """The classifier in a folder, on the CPU, with texts cut at ``max_length`` tokens, whatever the folder says.

    Raises:
        UserError: the encoder has fewer positions.
    """
    predictor = Predictor.load(folder, make_placement("cpu"))
    most = predictor.config.encoder.max_positions  # type: ignore[union-attr]  # it is no model of ours
    if max_length > most:
        raise UserError(f"--max_length={max_length}: the encoder has {most} positions; set no more")
    predictor.tokeniser = dataclasses.replace(predictor.tokeniser, max_length=max_length)  # type: ignore[type-var]
    return predictor
