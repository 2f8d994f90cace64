"""The hosts of a job, and how they exchange values.

A job on several hosts is one process per host, all with the same command; ``TF_CONFIG`` lists the hosts. Only the first
host, the chief, writes files. Every host makes the same calls in the same order.
"""

import contextlib
import dataclasses
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from files.documents import parse_json, shown
from files.errors import Interrupted, UserError
from files.writing import held_back, is_held_back

_EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The hosts of a job, and which of them this process is.

    Attributes:
        addresses: HOST:PORT of each host, the chief's first; empty for a job on one host.
        index: of this process.
    """

    addresses: tuple[str, ...] = ()
    index: int = 0

    @property
    def count(self) -> int:
        """The number of hosts."""
        return max(1, len(self.addresses))

    @property
    def chief(self) -> bool:
        """Whether this process writes files."""
        return self.index == 0


def hosts() -> Hosts:
    """The hosts that ``TF_CONFIG`` names, for either backend; one host if it is not set.

    Raises:
        UserError: ``TF_CONFIG`` is not understood.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text.strip():
        return Hosts()
    about = parse_json(text, "TF_CONFIG")
    try:
        cluster, task = about["cluster"], about["task"]
        addresses = [*cluster.get("chief", []), *cluster["worker"]] if "worker" in cluster else [*cluster["chief"]]
        index = task["index"] + (len(cluster.get("chief", [])) if task["type"] == "worker" else 0)
        whole = set(cluster) <= {"chief", "worker"} and task["type"] in cluster and type(task["index"]) is int
        whole = whole and 0 <= task["index"] < len(cluster[task["type"]]) and len(set(addresses)) == len(addresses)
        if not (whole and all(map(_is_address, addresses))):
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"TF_CONFIG={shown(about)} is not understood: write it as {_EXAMPLE}") from error
    return Hosts(tuple(addresses), index) if len(addresses) > 1 else Hosts()


def _is_address(text: Any) -> bool:
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    return bool(host) and port.isascii() and port.isdigit() and 0 < int(port) < 2**16


def exchange(value: Any) -> list[Any]:
    """The values of all hosts, in their order; values must be JSON. Every host must call it."""
    if hosts().count == 1:
        return [value]
    from training.backends import backend

    return [json.loads(text) for text in backend().exchange(json.dumps(value))]


def on_chief(function: Callable[[], Any]) -> Any:
    """The JSON value that ``function`` returns on the chief; the other hosts wait for it, and get its UserError too.

    Raises:
        UserError: the chief's ``function`` raised it.
    """
    if hosts().count == 1:
        return function()
    answer: dict[str, Any] = {}
    if hosts().chief:
        try:
            answer = {"value": function()}
        except UserError as error:
            answer = {"error": str(error)}
            exchange(answer)
            raise
    answer = exchange(answer)[0]
    if "error" in answer:
        raise UserError(answer["error"])
    return answer["value"]


def check_chief_writes(path: Path, flag: str) -> None:
    """Raises UserError for a folder of results inside the cache folder, where every host writes."""
    if hosts().count > 1 and not hosts().chief and not is_held_back(path):
        raise UserError(f"{flag}={path} lies in the cache folder, where every host writes: choose another")


def lost(what: str) -> UserError:
    """The error of a host that failed because another host failed; ``what`` is the backend's message."""
    told = re.search(r"host \d+ of \d+ \([^\n]*?\): .*?(?= \[\[|\n|$)", what)
    if told:
        return UserError(f"{told[0].strip()} (all hosts have to start again, with the same command)")
    reason = " ".join(what.split())[:150]
    return UserError(
        f"another host has ended or cannot be reached ({reason}); read its output, and start all hosts again with the "
        "same command: they go on from the last checkpoint"
    )


@contextmanager
def taking_part(cache: Path) -> Iterator[None]:
    """The context of a task on several hosts; on one host it does nothing.

    Only the chief prints, and writes files outside ``cache``. A host that fails tells the others. All hosts end
    together.
    """
    me = hosts()
    if me.count == 1:
        yield
        return
    from training.backends import backend

    with ExitStack() as stack:
        if not me.chief:
            print(f"host {me.index} of {me.count}, counted from 0: host 0 prints the progress", flush=True)
            stack.enter_context(held_back(but=cache))
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        try:
            try:
                yield
            except Interrupted:  # all hosts are interrupted together
                exchange("end")
                raise
            exchange("end")
        except Interrupted:
            raise
        except BaseException as error:
            of_another = backend().failure_of_another(error)
            own = " ".join(str(error).split())[:300] or type(error).__name__
            backend().leave("" if of_another else f"host {me.index} of {me.count} ({me.addresses[me.index]}): {own}")
            if of_another:
                raise lost(of_another) from error
            raise


def rendezvous(me: Hosts, patience: float = 600.0) -> None:
    """Waits until every host has connected to a socket on the chief's port, which is closed afterwards.

    The backends' own waiting has no time limit, or blocks Python's handling of signals.

    Args:
        me: this host and all others.
        patience: seconds to wait.

    Raises:
        UserError: a host does not connect.
    """
    host, port = me.addresses[0].rsplit(":", 1)
    end = time.monotonic() + patience
    if me.chief:
        _receive(int(port), me, end)
        return
    while time.monotonic() < end:
        try:
            with socket.create_connection((host, int(port)), timeout=5.0) as chief:
                chief.sendall(f"{me.index}\n".encode())
                chief.settimeout(max(0.1, end - time.monotonic()))
                if chief.recv(2) == b"go":
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise UserError(f"the first host of TF_CONFIG, {me.addresses[0]}, has not answered in {patience:.0f} s")


def _receive(port: int, me: Hosts, end: float) -> None:
    """Waits for all other hosts, and then lets them go on."""
    there: dict[int, socket.socket] = {}
    print_at = time.monotonic() + 5.0
    try:
        server = socket.create_server(("", port))
    except OSError as error:
        raise UserError(f"TF_CONFIG: port {port} of {me.addresses[0]} cannot be used here: {error.strerror}") from error
    with server, ExitStack() as stack:
        server.settimeout(1.0)
        while len(there) < me.count - 1:
            missing = ", ".join(me.addresses[i] for i in range(1, me.count) if i not in there)
            if time.monotonic() > end:
                raise UserError(f"these hosts of TF_CONFIG have not connected: {missing}; start the same command there")
            if time.monotonic() > print_at:
                print(f"waiting for {missing}", flush=True)
                print_at = end
            with contextlib.suppress(OSError, ValueError):
                peer = stack.enter_context(server.accept()[0])
                peer.settimeout(5.0)
                there[int(peer.recv(16))] = peer
        for peer in there.values():
            with contextlib.suppress(OSError):
                peer.sendall(b"go")
                peer.recv(1)  # returns when the other side has closed, so that the port is free at once
