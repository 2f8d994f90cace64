"""Processes that share the work on many chunks. They end with this process, however it ends, and print nothing."""

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
    "a process that shares the work on the texts was killed, perhaps for want of memory; free some, or let fewer work "
    "at a time: taskset -c 0 python …; in a script of your own, begin below if __name__ == '__main__':"
)
C = TypeVar("C")
T = TypeVar("T")


def map_in_processes(function: Callable[[Any, C], T], tool: Any, chunks: Sequence[C], workers: int) -> list[T]:
    """``function(tool, chunk)`` of every chunk, in order.

    The tool is sent to each process once, so that it can remember from chunk to chunk. Whatever is raised meanwhile, an
    interruption too, ends the processes at once.

    Raises:
        UserError: a process was killed.
    """
    numbers = iter(range(len(chunks)))
    results: dict[int, T] = {}
    given: dict[Connection, int] = {}  # who has which chunk
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
    """Starts processes and gives the pipes to them; at the end they are killed: they have nothing to lose."""
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
    """Processes started inside never hear SIGINT, SIGTERM or SIGHUP: a terminal sends them to all, this one decides."""
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
    """The life of a process: a function and a tool, then chunks and answers, until nobody is at the other end."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answer = _answers(pipe)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            pipe.send(answer(pipe.recv()))


def _answers(pipe: Connection) -> Callable[[Any], tuple[Any, Exception | None]]:
    """chunk → the function's result, or the error that it or the tool's arrival raised."""
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
