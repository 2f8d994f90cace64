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
from files.tensors import read_tensors
from files.writing import append_text, draft_folder, held_back, move_whole, write_text
from tests import jobs
from tests.processes import wait_until
from tests.scripts import ROOT, run_process
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
    with pytest.raises(UserError, match=f"not come: {addresses[1]}"):
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


# ------------------------------------------------------------------------------------------------ processes on this machine

BACKENDS = ["tensorflow", pytest.param("jax", marks=pytest.mark.slow)]
TEXT = ["--width=16", "--ffn_width=16", "--num_heads=2", "--num_layers=1", "--batch_size=16", "--learning_rate=0.01",
        "--max_length=16", "--min_count=1", "--devices=cpu", "--ema_decay=0.9", "--dropout=0.2", "--token_dropout=0.1",
        "--log_every=2"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of 75 rows: every epoch ends on a ragged batch."""
    folder = tmp_path_factory.mktemp("data")
    topics = ["match goal team striker", "market shares bank profit", "actor scene film star"]
    rng = np.random.default_rng(0)
    lines = ["text,label"]
    for i in range(75):
        words = rng.permutation(topics[i % 3].split() + [f"word{rng.integers(9)}" for _ in range(i % 7)])
        lines.append(f"{' '.join(words)},{'abc'[i % 3]}")
    (folder / "texts.csv").write_text("\n".join(lines) + "\n")
    return ["--dataset=csv", f"--data_path={folder / 'texts.csv'}", f"--cache_dir={folder / 'cache'}"]


def _weights(run: Path) -> dict[str, np.ndarray]:
    tensors, _ = read_tensors(run / "checkpoints" / "last.safetensors")
    return {name: array for name, array in tensors.items() if name != "history"}


def _metrics(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "second" not in k and k != "split"} for line in lines]


def _equal(one: Path, two: Path, tolerance: float = 1e-5) -> None:
    ours, theirs = _weights(one), _weights(two)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_allclose(array, theirs[name], atol=tolerance, rtol=tolerance, err_msg=name)
    for line, other in zip(_metrics(one), _metrics(two), strict=True):
        assert line == pytest.approx(other, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_hosts_are_one(tmp_path: Path, data: list[str], backend: str) -> None:
    flags = [*data, *TEXT, "--num_steps=12", "--eval_every=6"]
    outputs = jobs.succeeds("train_text", *flags, f"--run_dir={tmp_path / 'two'}", backend=backend)
    said = [line for line in outputs[1].splitlines() if not line.startswith("[Gloo]")]  # which JAX prints
    assert "test split" in outputs[0] and said == ["host 1 of 2, counted from 0: host 0 says what is done"]
    done = run_process("train_text", *flags, f"--run_dir={tmp_path / 'one'}")
    assert done.returncode == 0, done.stderr
    _equal(tmp_path / "two", tmp_path / "one")
    files = [sorted(p.name for p in (tmp_path / run).rglob("*")) for run in ("one", "two")]
    assert files[0] == files[1]
    reports = [json.loads((tmp_path / run / "result.json").read_text())["test_accuracy"] for run in ("one", "two")]
    assert reports[0] == reports[1]
    again = jobs.succeeds("train_text", *flags, f"--run_dir={tmp_path / 'two'}", backend=backend)
    assert "finished before" in again[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stop_on_one_host_stops_all_and_a_killed_one_is_told(tmp_path: Path, data: list[str], backend: str) -> None:
    """Stopped by a signal to the second, then killed, then finished: the same numbers as in one go."""
    flags = [*data, *TEXT, "--num_steps=300", "--eval_every=100", "--log_every=10"]
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
    assert _metrics(run) == _metrics(tmp_path / "whole")
    ours, whole = _weights(run), _weights(tmp_path / "whole")
    for name in whole:
        np.testing.assert_array_equal(ours[name], whole[name], err_msg=name)


# ---------------------------------------------------------------------------------------------------- every script, slowly

ENCODER = ROOT / "tests" / "golden" / "tiny" / "bert"
TUNED = [f"--encoder={ENCODER}", "--max_length=12", "--devices=cpu", "--num_steps=6", "--eval_every=3", "--log_every=1",
         "--learning_rate=0.001"]  # fmt: skip
NETWORK = ["--base_width=8", "--channel_multipliers=1", "--num_blocks=1", "--attention_resolutions=", "--num_groups=4",
           "--batch_size=16", "--devices=cpu", "--diffusion_steps=50", "--sampling_steps=4", "--num_samples=11",
           "--warmup=0", "--log_every=2", "--num_steps=4", "--eval_every=2", "--learning_rate=0.001"]  # fmt: skip
BRIDGE = [f"--encoder={ENCODER}", "--max_length=12", "--height=12", "--width=12", "--perplexity=5", "--weights=random:1",
          "--enlarge=4", "--backbone=squeezenet1_1", "--head_kernel=2", "--head_filters=6,4", "--head_pooled=2",
          "--head_dense=8", "--batch_size=8", "--num_epochs=2", "--devices=cpu"]  # fmt: skip
RUNS = {
    "words": ["finetune_bert", *TUNED, "--batch_size=16", "--tsne=0", "--mlm_epochs=1"],
    "token budget": ["finetune_bert", *TUNED, "--batch_tokens=100", "--tsne=10"],
    "features": ["embed_text", f"--encoder={ENCODER}", "--max_length=12", "--devices=cpu", "--layers=1,-1"],
    "digits": ["ddpm", *NETWORK],
    "table": ["imdb_images", *BRIDGE],
}


def _figures(run: Path) -> dict[str, float]:
    result = json.loads((run / "result.json").read_text()) if (run / "result.json").exists() else {}
    timed = ("second", "version", "rate")
    return {k: v for k, v in result.items() if isinstance(v, int | float) and not any(word in k for word in timed)}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
@pytest.mark.parametrize("name", RUNS)
def test_every_script_on_two_hosts(tmp_path: Path, data: list[str], name: str, backend: str) -> None:
    script, *flags = RUNS[name]
    texts = [] if name == "digits" else data[:2]
    one, two = tmp_path / "one", tmp_path / "two"
    jobs.succeeds(script, *texts, *flags, f"--cache_dir={tmp_path / 'cache2'}", f"--run_dir={two}", backend=backend)
    done = run_process(script, *texts, *flags, f"--cache_dir={tmp_path / 'cache1'}", f"--run_dir={one}")
    assert done.returncode == 0, done.stderr
    ours, theirs = (sorted(str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()) for run in (two, one))
    assert ours == theirs
    assert _figures(two) == pytest.approx(_figures(one), rel=2e-3, abs=2e-3)
    for array in one.glob("*.npy"):
        np.testing.assert_allclose(np.load(two / array.name), np.load(array), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_images_and_distances_on_two_hosts(tmp_path: Path, backend: str) -> None:
    run, image = tmp_path / "run", ["--num_images=21", "--batch_size=8", "--devices=cpu", "--sampler=ddim"]
    assert run_process("ddpm", *NETWORK, f"--run_dir={run}").returncode == 0
    for form in ("npz", "png", "grid"):
        given = [*image, "--sampling_steps=4", f"--format={form}", f"--run_dir={run}"]
        jobs.succeeds("sample_ddpm", *given, f"--out={tmp_path / 'two'}", backend=backend)
        assert run_process("sample_ddpm", *given, f"--out={tmp_path / 'one'}").returncode == 0
    two, one = (np.load(tmp_path / side / "images.npy").astype(int) for side in ("two", "one"))
    assert np.abs(two - one).max() <= 1
    assert len(list((tmp_path / "two" / "png").rglob("*.png"))) == 21
    given = [f"--a={tmp_path / 'one' / 'images.npz'}", "--b=digits:test", "--features=keras", "--weights=random:1",
             "--devices=cpu", "--num_images=16", "--batch_size=8"]  # fmt: skip
    outputs = jobs.succeeds("fid", *given, f"--run_dir={tmp_path / 'fid2'}", backend=backend)
    assert "fid" in outputs[0]
    assert run_process("fid", *given, f"--run_dir={tmp_path / 'fid1'}").returncode == 0
    found, expected = (json.loads((tmp_path / name / "result.json").read_text())["fid"] for name in ("fid2", "fid1"))
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_mistake_on_one_host_is_told_to_all(tmp_path: Path, data: list[str], backend: str) -> None:
    flags = [*data, *TEXT, "--num_steps=5", f"--run_dir={tmp_path / 'run'}"]
    for of_host in ({1: ["--data_path=nowhere.csv"]}, {0: ["--data_path=nowhere.csv"]}, {1: ["--learning_rate=0.5"]}):
        ends = jobs.Job("train_text", *flags, of_host=of_host, backend=backend).end(90)
        for status, _, error in ends:
            lines = [line for line in error.splitlines() if line.startswith("error:")]
            assert status not in (0, None) and len(lines) == 1 and "Traceback" not in error, error
            assert "nowhere.csv" in lines[0] or "other flags" in lines[0], lines
        assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_on_each_of_two_hosts_and_three_hosts(tmp_path: Path, data: list[str], backend: str) -> None:
    flags = [*data, *[flag for flag in TEXT if "devices" not in flag], "--num_steps=6", "--eval_every=3",
             "--batch_size=24"]  # fmt: skip
    jobs.succeeds("train_text", *flags, "--devices=cpu:2", f"--run_dir={tmp_path / 'four'}", backend=backend)
    jobs.succeeds("train_text", *flags, "--devices=cpu", f"--run_dir={tmp_path / 'three'}", backend=backend, hosts=3)
    assert run_process("train_text", *flags, "--devices=cpu", f"--run_dir={tmp_path / 'one'}").returncode == 0
    _equal(tmp_path / "four", tmp_path / "one")
    _equal(tmp_path / "three", tmp_path / "one")
