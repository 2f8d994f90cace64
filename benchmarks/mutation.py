"""Mutation testing of the mathematical modules by mutmut 3: how many small errors put into a module its tests find.

    pip install mutmut
    python -m benchmarks.mutation --modules=diffusion.process.process --folder=/tmp/mutation
    python -m benchmarks.mutation --modules=diffusion.process.process --folder=/tmp/mutation --again

Works on a copy in ``--folder``, which is replaced, and prints the survivors; ``--again`` copies the tests anew and
retries the survivors alone. ``setup.cfg`` has the rest of the configuration. The results are in docs/mutation.md.
"""

import configparser
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("modules", [], "Modules to mutate; empty: all.")
flags.DEFINE_string("folder", None, "Folder of the copy that is mutated.", required=True)
flags.DEFINE_integer("most", 0, "Mutants to try per module, drawn at random; 0: all.")
flags.DEFINE_integer("seed", 0, "Seed of the draw of --most.")
flags.DEFINE_bool("again", False, "Try only the mutants that survived the last time.")

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("files", "training", "text_cls", "diffusion", "vision_bridge", "experiments", "benchmarks", "tests")

# Module → its own fast tests, without tests/test_ and .py.
MODULES = {
    "diffusion.process.process": "process process_by_hand",
    "diffusion.sampling.samplers": "samplers_by_hand",
    "diffusion.process.levels": "process samplers_by_hand",
    "diffusion.sampling.spacings": "process_by_hand",
    "diffusion.fid.frechet": "fid",
    "diffusion.fid.quality": "quality quality_by_hand",
    "diffusion.fid.mmd": "quality quality_by_hand",
    "diffusion.fid.prdc": "feature_neighbours",
    "vision_bridge.layouts.rectangle": "rectangle",
    "vision_bridge.layouts.tsne": "tsne_by_hand",
    "training.schedules": "schedules",
    "training.adamw": "optimizer",
    "training.engine_optimizer": "optimizer",
    "text_cls.evaluation.metrics": "metrics",
    "text_cls.tokens.wordpiece": "wordpiece",
}
# pytest's exit codes, and signals where a mutant ran out of time; 255 is a failure of pytest itself and no kill.
KILLED = {1: "killed", 3: "killed", 24: "timeout", -24: "timeout", 36: "timeout", 152: "timeout"}


def copy(folder: Path, modules: list[str]) -> None:
    """The code, the tests, and a configuration for some modules."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    tests = sorted({f"tests/test_{name}.py" for module in modules for name in MODULES[module].split()})
    config["mutmut"]["only_mutate"] = "\n" + "\n".join(source(module) for module in modules)
    config["mutmut"]["pytest_add_cli_args_test_selection"] = "\n" + "\n".join(tests)
    with (folder / "setup.cfg").open("w") as file:
        config.write(file)


def source(module: str) -> str:
    """A module's file."""
    return module.replace(".", "/") + ".py"


def mutants(module: str) -> list[str]:
    """All mutants of a module by name, without a run; in the copy, where mutmut looks for its configuration."""
    from mutmut.mutation.file_mutation import mutate_file_contents

    names = mutate_file_contents(source(module), Path(source(module)).read_text()).mutant_names
    return [f"{module}.{name}" for name in names]


def outcomes(module: str) -> dict[str, int]:
    """Mutants that were tried → pytest's exit code."""
    found = json.loads(Path(f"mutants/{source(module)}.meta").read_text())["exit_code_by_key"]
    return {name: code for name, code in found.items() if code is not None}


def survivors(module: str) -> list[str]:
    """Mutants that were tried and not killed."""
    return [name for name, code in outcomes(module).items() if code not in KILLED]


def main(_: list[str]) -> None:
    """Makes the copy, tries the mutants, prints the survivors and a line for each module."""
    modules, folder = FLAGS.modules or list(MODULES), Path(FLAGS.folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / "mutants").is_dir():
        sys.exit(f"--folder={folder} holds files of somebody else, and would be replaced: name a new folder")
    if not FLAGS.again:
        shutil.rmtree(folder, ignore_errors=True)
    copy(folder, modules)
    os.chdir(folder)
    names: list[str] = []
    if FLAGS.again:
        names = [name for module in modules for name in survivors(module)]
    elif FLAGS.most:
        draw = random.Random(FLAGS.seed)
        names = [
            name
            for every in map(mutants, modules)
            for name in (draw.sample(every, FLAGS.most) if len(every) > FLAGS.most else every)
        ]
    environment = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"} | dict(os.environ) | {"TESTS_ARE_FORKED": "1"}
    command = [sys.executable, "-m", "mutmut"]
    with Path("log.txt").open("w") as log:
        run = [*command, "run", "--max-children=1", *names]
        subprocess.run(run, env=environment, stdout=log, stderr=log, check=True)
    for module in modules:
        for name in survivors(module):
            print(subprocess.run([*command, "show", name], capture_output=True, text=True).stdout)
    for module in modules:
        codes = outcomes(module)
        killed = len(codes) - len(survivors(module))
        kinds = dict(Counter(KILLED.get(code, f"exit code {code}") for code in codes.values()))
        print(f"{module}: {len(codes)} of {len(mutants(module))} mutants, {killed / len(codes):.1%} killed, {kinds}")


if __name__ == "__main__":
    app.run(main)
