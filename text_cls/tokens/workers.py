"""Processes that work on many chunks. They end when this process ends, for any reason, and print nothing."""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from files.errors import UserError

_KILLED = (
    "a process that works on the texts was killed, perhaps because memory ran out; free some memory, or use fewer "
    "processes: taskset -c 0 python …; in a script of your own, begin below if __name__ == '__main__':"
)
C = TypeVar("C")
T = TypeVar("T")


def map_in_processes(function: Callable[[Any, C], T], tool: Any, chunks: Sequence[C], workers: int) -> list[T]:
    """``function(tool, chunk)`` for every chunk, in order.

    The tool is sent to each process once, so that it can keep results between chunks. Any exception here, also an
    interruption, ends the processes at once.

    Raises:
        UserError: a process was killed.
    """
    numbers = iter(range(len(chunks)))
    results: dict[int, T] = {}
    given: dict[Connection, int] = {}  # the chunk that each process has
    with _processes(workers) as idle:
        for pipe in idle:
            _send(pipe, (function, tool))
        while len(results) < len(chunks):
            for pipe, number in zip(idle, numbers):  # noqa: B905 - whichever ends first
                _send(pipe, chunks[number])
                given[pipe] = number
            idle = [pipe for pipe in wait(list(given)) if isinstance(pipe, Connection)]
            for pipe in idle:
                results[given.pop(pipe)] = _receive(pipe)
    return [results[number] for number in range(len(chunks))]


@contextmanager
def _processes(count: int) -> Iterator[list[Connection]]:
    """Starts processes, and yields the pipes to them; at the end the processes are killed, which loses nothing."""
    context = multiprocessing.get_context("spawn")  # a fork of a process with TensorFlow's threads may hang
    pipes, processes = [], []
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            pipes.append(ours)
            with theirs, _deaf_children():
                processes.append(context.Process(target=_serve, args=(theirs,), daemon=True))
                processes[-1].start()
        yield pipes
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()
        for pipe in pipes:
            pipe.close()


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes started inside never receive SIGINT, SIGTERM or SIGHUP, which a terminal sends to all processes: only
    this process handles them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # its start would end the blocking
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _send(pipe: Connection, message: Any) -> None:
    try:
        pipe.send(message)
    except ConnectionError as error:
        raise UserError(_KILLED) from error


def _receive(pipe: Connection) -> Any:
    try:
        result, error = pipe.recv()
    except (EOFError, ConnectionError) as end:
        raise UserError(_KILLED) from end
    if error is not None:
        raise error
    return result


def _serve(pipe: Connection) -> None:
    """The loop of a process: receives function and tool, then answers chunks until the pipe is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answer = _answers(pipe)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            pipe.send(answer(pipe.recv()))


def _answers(pipe: Connection) -> Callable[[Any], tuple[Any, Exception | None]]:
    """chunk → the function's result, or the error of the function or of receiving the tool."""
    try:
        function, tool = pipe.recv()
    except Exception as error:
        problem = error
        return lambda chunk: (None, problem)

    def answer(chunk: Any) -> tuple[Any, Exception | None]:
        try:
            return function(tool, chunk), None
        except Exception as error:
            if not isinstance(error, UserError):
                error.add_note(traceback.format_exc())
            return None, error

    return answer


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
