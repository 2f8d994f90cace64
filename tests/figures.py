"""The figures that a module draws, kept for a test to look into."""

from types import ModuleType

import pytest

from training.plots import NewFigure, new_figure


def drawn(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[NewFigure]:
    """Grows with every figure that ``module`` makes."""
    made: list[NewFigure] = []

    def keep(*shape: int, **options: object) -> NewFigure:
        made.append(new_figure(*shape, **options))
        return made[-1]

    monkeypatch.setattr(module, "new_figure", keep)
    return made
