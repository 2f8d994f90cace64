"""The lines of docs/distributed.md that make TF_CONFIG, as a cluster would run them."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts import ROOT
from training.hosts import Hosts, hosts

TEXT = (ROOT / "docs" / "distributed.md").read_text()


def _block(name: str) -> str:
    found = re.search(rf"<!-- tested: {name} -->\n```\w+\n(.*?)```", TEXT, re.DOTALL)
    assert found
    return found[1]


def _config(folder: Path, script: str, environment: dict[str, str]) -> str:
    """What TF_CONFIG is where ``script`` begins the job: ``python -m`` prints it instead."""
    for name, content in {
        "scontrol": 'test "$*" = "show hostnames node[1-4]" && printf "node1\\nnode2\\nnode3\\nnode4\\n"',
        "srun": '"$@"',
        "python": f'if [ "$1" = -m ]; then printenv TF_CONFIG; else exec {sys.executable} "$@"; fi',
    }.items():
        tool = folder / name
        tool.write_text(f"#!/bin/bash\n{content}\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    path = f"{folder}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, env=environment | {"PATH": path}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-4]", "SLURM_PROCID": "2"}
    monkeypatch.setenv("TF_CONFIG", _config(tmp_path, _block("slurm"), environment))
    assert hosts() == Hosts(("node1:2222", "node2:2222", "node3:2222", "node4:2222"), 2)


def test_kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = _block("kubernetes").splitlines()
    first = next(i for i, line in enumerate(lines) if "export TF_CONFIG" in line)
    last = next(i for i, line in enumerate(lines) if "exec python" in line)
    script = "\n".join(line[10:] for line in lines[first : last + 1])
    monkeypatch.setenv("TF_CONFIG", _config(tmp_path, script, {"JOB_COMPLETION_INDEX": "3"}))
    found = hosts()
    assert found.index == 3 and found.addresses[0] == "triptych-0.triptych:2222" and found.count == 4


def test_the_command_line_of_two_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(r"TF_CONFIG='(.*?)'", TEXT)
    assert found
    monkeypatch.setenv("TF_CONFIG", json.dumps(json.loads(found[1])))
    assert hosts() == Hosts(("10.0.0.1:2222", "10.0.0.2:2222"), 0)
