"""Jobs on several hosts: what TF_CONFIG says, who writes, and that hosts change no number."""

import json
import re
import signal
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from files.errors import UserError
from files.writing import append_text, draft_folder, held_back, move_whole, write_text
from tests import jobs
from tests.processes import wait_until
from tests.scripts import run_process
from training import hosts as module
from training.hosts import Hosts, exchange, hosts, lost, on_chief, rendezvous

TWO = {"worker": ["a:1", "b:2"]}


def _config(cluster: object, kind: object = "worker", index: object = 0) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Hosts()),
        (_config(TWO, index=1), Hosts(("a:1", "b:2"), 1)),
        (_config({"chief": ["c:3"], "worker": ["a:1"]}, index=0), Hosts(("c:3", "a:1"), 1)),
        (_config({"chief": ["c:3"], "worker": ["a:1"]}, "chief"), Hosts(("c:3", "a:1"), 0)),
        (_config({"worker": ["a:1"]}), Hosts()),
        (_config({"chief": ["c:3"]}, "chief"), Hosts()),
    ],
)
def test_who_takes_part(text: str, expected: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    assert hosts() == expected


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", "3", "{}", '{"cluster": {}}', _config({}), _config({"worker": []}), _config({"worker": "ab"}),
        _config(TWO, index=2), _config(TWO, index=-1), _config(TWO, index="0"), _config(TWO, index=True),
        _config(TWO, "ps"), _config({"worker": ["a:1"], "ps": ["p:1"]}), _config({"worker": ["a:1", "a:1"]}),
        _config({"worker": ["a", "b"]}), _config({"worker": [1, 2]}), _config(TWO, "evaluator"), _config(None),
    ],
)  # fmt: skip
def test_what_is_no_cluster(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match="TF_CONFIG"):
        hosts()


def test_one_host_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert exchange({"a": 1}) == [{"a": 1}] and on_chief(lambda: 5) == 5


def test_the_others_get_the_chiefs_answer_and_its_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    answers = iter([[{"value": 7}, {}], [{"error": "no such file"}, {}]])
    monkeypatch.setattr(module, "exchange", lambda value: sent.append(value) or next(answers))
    monkeypatch.setenv("TF_CONFIG", _config(TWO, index=1))
    asked = lambda: pytest.fail("asked on another host")  # noqa: E731
    assert on_chief(asked) == 7
    with pytest.raises(UserError, match="no such file"):
        on_chief(asked)
    monkeypatch.setenv("TF_CONFIG", _config(TWO))
    monkeypatch.setattr(module, "exchange", lambda value: sent.append(value) or [value, {}])
    assert on_chief(lambda: 8) == 8 and sent[-1] == {"value": 8}

    def mistaken() -> None:
        raise UserError("wrong")

    with pytest.raises(UserError, match="wrong"):
        on_chief(mistaken)
    assert sent[-1] == {"error": "wrong"}


def test_hosts_wait_for_one_another_and_free_the_port() -> None:
    for _ in range(2):  # a second job on the same ports
        addresses = tuple(jobs.addresses(3))
        others = [threading.Thread(target=rendezvous, args=(Hosts(addresses, i), 20.0)) for i in (1, 2)]
        others[0].start()
        chief = threading.Thread(target=rendezvous, args=(Hosts(addresses), 20.0))
        chief.start()
        chief.join(0.5)
        assert chief.is_alive() and others[0].is_alive()
        with socket.create_connection(("127.0.0.1", int(addresses[0].split(":")[1]))) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n")
        others[1].start()
        for thread in (chief, *others):
            thread.join(20.0)
            assert not thread.is_alive()
        socket.create_server(("", int(addresses[0].split(":")[1]))).close()


def test_hosts_that_do_not_come() -> None:
    addresses = tuple(jobs.addresses())
    with pytest.raises(UserError, match=f"not connected: {addresses[1]}"):
        rendezvous(Hosts(addresses), 0.2)
    with pytest.raises(UserError, match=f"{addresses[0]}, has not answered"):
        rendezvous(Hosts(addresses, 1), 0.2)
    taken = socket.create_server(("", int(addresses[0].split(":")[1])))
    with taken, pytest.raises(UserError, match="cannot be used"):
        rendezvous(Hosts(addresses), 0.2)


def test_what_a_lost_host_said_is_repeated() -> None:
    told = "INVALID: host 1 of 2 (b:2): data.csv: no such file; name another [[{{node x}}]]\nmore"
    assert str(lost(told)).startswith("host 1 of 2 (b:2): data.csv: no such file; name another (")
    assert "Socket closed" in str(lost("Collective ops is aborted by: Socket closed\n at 1"))


def test_what_is_held_back_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("one\n")
    with held_back(but=tmp_path / "cache"):
        append_text(tmp_path / "log.txt", "two\n")
        write_text(tmp_path / "new.txt", "text")
        write_text(tmp_path / "cache" / "new.txt", "text")
        with draft_folder(tmp_path / "folder") as draft:
            (draft / "file").write_text("text")
            move_whole(draft, tmp_path / "folder")
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["cache/new.txt", "log.txt"] and (tmp_path / "log.txt").read_text() == "one\n"
    write_text(tmp_path / "new.txt", "text")
    assert (tmp_path / "new.txt").exists()


# ------------------------------------------------------------------------------------------ processes on this machine

BACKENDS = ["tensorflow", pytest.param("jax", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return jobs.write_texts(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_hosts_are_one(tmp_path: Path, data: list[str], backend: str) -> None:
    flags = [*data, *jobs.TEXT, "--num_steps=12", "--eval_every=6"]
    outputs = jobs.succeeds("train_text", *flags, f"--run_dir={tmp_path / 'two'}", backend=backend)
    said = [line for line in outputs[1].splitlines() if not line.startswith("[Gloo]")]  # which JAX prints
    assert "test split" in outputs[0] and said == ["host 1 of 2, counted from 0: host 0 prints the progress"]
    done = run_process("train_text", *flags, f"--run_dir={tmp_path / 'one'}")  # whose names begin with 0 too
    assert done.returncode == 0, done.stderr
    jobs.assert_equal(tmp_path / "two", tmp_path / "one")
    files = [sorted(p.name for p in (tmp_path / run).rglob("*")) for run in ("one", "two")]
    assert files[0] == files[1]
    reports = [json.loads((tmp_path / run / "result.json").read_text())["test_accuracy"] for run in ("one", "two")]
    assert reports[0] == reports[1]
    if backend == "jax":  # is slow anyway
        again = jobs.succeeds("train_text", *flags, f"--run_dir={tmp_path / 'two'}", backend=backend)
        assert "finished before" in again[0]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_stop_on_one_host_stops_all_and_a_killed_one_is_told(tmp_path: Path, data: list[str], backend: str) -> None:
    """Stopped by a signal to the second, then killed, then finished: the same numbers as in one go."""
    flags = [*data, *jobs.TEXT, "--num_steps=300", "--eval_every=100", "--log_every=10"]
    run = tmp_path / "run"

    def started(step: int) -> jobs.Job:
        job = jobs.Job("train_text", *flags, f"--run_dir={run}", backend=backend)
        wait_until(lambda: (run / "log.txt").exists() and f"step {step}/300" in (run / "log.txt").read_text(), 240)
        return job

    job = started(20)
    job.signal(1, signal.SIGTERM)
    ends = job.end(60)
    assert [status for status, _, _ in ends] == [130, 130]
    found = [re.search(r"stopped after step (\d+)", error) for _, _, error in ends]
    assert found[0] and found[1] and found[0][1] == found[1][1]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["last.safetensors"]

    job = started(110)
    job.signal(1, signal.SIGKILL)
    start = time.monotonic()
    ends = job.end(60)
    assert time.monotonic() - start < 60
    assert ends[0][0] not in (0, None) and "error: another host has ended or cannot be reached" in ends[0][2]
    assert "Traceback" not in ends[0][2]

    jobs.succeeds("train_text", *flags, f"--run_dir={run}", backend=backend)
    jobs.succeeds("train_text", *flags, f"--run_dir={tmp_path / 'whole'}", backend=backend)
    assert jobs.metrics(run) == jobs.metrics(tmp_path / "whole")
    ours, whole = jobs.weights(run), jobs.weights(tmp_path / "whole")
    for name in whole:
        np.testing.assert_array_equal(ours[name], whole[name], err_msg=name)
