"""Progress of long jobs: a bar on a terminal, lines in a log."""

import sys

import pytest

from training import progress
from training.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, which the test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_plain_line_now_and_then(clock: list[float], capsys: pytest.CaptureFixture) -> None:
    shown = Progress(1200, "text", done=200)
    for clock[0], done in ((1.0, 210), (12.0, 320), (13.0, 330), (100.0, 1200), (101.0, 1200)):
        shown.update(done)
    assert capsys.readouterr().out == (
        "320 of 1,200 texts, 100 ms/text, left 1:28\n1,200 of 1,200 texts, 100 ms/text, left 0:00\n"
    )


def test_without_a_total_there_is_no_time_left(clock: list[float], capsys: pytest.CaptureFixture) -> None:
    shown = Progress(None, "image")
    for clock[0], more in ((5.0, 1), (11.0, 1), (30.0, 2000)):
        shown.add(more)
    assert capsys.readouterr().out == "2 images, 5.5 s/image\n2,002 images, 15 ms/image\n"
    shown.add(0)
    assert capsys.readouterr().out == ""
    shown.update(2004)
    clock[0] = 40.08
    shown.finish()
    assert capsys.readouterr().out == "2,004 images, 20 ms/image\n"
    Progress(None, "image").finish()
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_the_bar_of_keras(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    shown = Progress(4, "image")
    shown.add(3)
    shown.update(4)
    out = capsys.readouterr().out
    assert "/image" in out and "4/4" in out and " of " not in out
