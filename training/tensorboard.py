"""Writes a run's figures for TensorBoard, without TensorFlow."""

import os
import socket
import time
from pathlib import Path

from files.errors import UserError
from training.run import Writer


def tensorboard_writer(path: Path) -> Writer:
    """Writes figures as TensorBoard scalars under ``path/tensorboard``, one file for each split.

    Raises:
        UserError: TensorBoard is not installed.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as error:
        raise UserError("--tensorboard needs the library tensorboard: pip install tensorboard") from error
    name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"

    def write(step: int, split: str, figures: dict[str, float]) -> None:
        file = path / "tensorboard" / split / name
        file.parent.mkdir(parents=True, exist_ok=True)
        events = [] if file.exists() else [Event(wall_time=time.time(), file_version="brain.Event:2")]
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in figures.items()]
        events.append(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        with open(file, "ab") as stream:
            for event in events:
                RecordWriter(stream).write(event.SerializeToString())

    return write
