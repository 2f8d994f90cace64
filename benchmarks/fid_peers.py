"""FID from two folders of image files to the printed figure: ours beside pytorch-fid, clean-fid and torch-fidelity.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.fid_peers --data_path=../shared/data/cifar10_jpg.tar.zst --count=500
    python -m benchmarks.fid_peers --size=256        # the same pictures as PNG files of 256×256
    python -m benchmarks.fid_peers --dims=192        # more images than features: the distances can be equal

Every side is its whole command in a process of its own, on the same files and cores, with its default batch size. Each
peer takes turns with our command in the peer's protocol. All sides compute the same network with random weights, whose
batch norms fit the images; its file is written once, in place of the file that they download. clean-fid downloads a
TorchScript of this network instead; here it uses pytorch-fid's network, with its own reading, resize, statistics and
distance.

A difference of figures has two parts. Our distance of the peer's features shows the error of its distance (a square
root of a singular product if images are fewer than features); the features show how far two float32 networks differ.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags

from benchmarks.fid_peers_files import HUB, write_images, write_weights
from benchmarks.turns import keep_to_cores

FLAGS = flags.FLAGS
flags.DEFINE_string("data_path", "../shared/data/cifar10_jpg.tar.zst", "A tar archive, or a folder, of image files.")
flags.DEFINE_integer("count", 500, "Images in each folder.")
flags.DEFINE_integer("size", 0, "Width and height of the images, as PNG; 0: the files unchanged.")
flags.DEFINE_list("peers", ["pytorch-fid", "clean-fid", "torch-fidelity"], "Libraries that ours is compared with.")
flags.DEFINE_enum(
    "dims", "2048", ["2048", "768", "192", "64"], "Features of the last layer (2048), or of an earlier one."
)
flags.DEFINE_integer("rounds", 3, "Measurements of each implementation.")
flags.DEFINE_integer("threads", 2, "CPU cores of each implementation.")
flags.DEFINE_integer("seed", 0, "Seed of the weights and of the choice of images.")
flags.DEFINE_string("side", "", "Internal: the implementation that this process runs.")
flags.DEFINE_string("folder", "", "Folder that keeps the files; empty: a temporary folder.")

PROTOCOLS = {"pytorch-fid": "pytorch-fid", "clean-fid": "clean", "torch-fidelity": "tf2015"}  # peer → --protocol

Found = tuple[float, np.ndarray, np.ndarray]  # the figure, and features of either side [N, D]


def recorded(module: Any, name: str) -> list[Any]:
    """A list to which a function of a module adds its results from now on."""
    results: list[Any] = []
    function = getattr(module, name)

    def record(*args: Any, **kwargs: Any) -> Any:
        results.append(function(*args, **kwargs))
        return results[-1]

    setattr(module, name, record)
    return results


def pytorch_fid(folder: Path) -> Found:
    """As its script calls it."""
    from pytorch_fid import fid_score

    features = recorded(fid_score, "get_activations")
    paths = [str(folder / side) for side in "ab"]
    figure = fid_score.calculate_fid_given_paths(paths, 50, "cpu", int(FLAGS.dims), num_workers=min(FLAGS.threads, 8))
    return figure, features[0], features[1]


def clean_fid(folder: Path) -> Found:
    """Its own function with pytorch-fid's network, which gets the inputs of clean-fid's own network."""
    import torch
    from cleanfid import fid
    from pytorch_fid.inception import InceptionV3

    block = InceptionV3.BLOCK_INDEX_BY_DIM[int(FLAGS.dims)]
    network = InceptionV3([block], resize_input=False, normalize_input=False).eval()
    features = recorded(fid, "get_folder_features")
    figure = fid.compute_fid(
        str(folder / "a"),
        str(folder / "b"),
        num_workers=FLAGS.threads,  # its default, 12, is for machines of as many cores
        device=torch.device("cpu"),
        custom_feat_extractor=lambda x: network((x - 128) / 128)[0].mean((2, 3)),
        verbose=False,
    )
    return figure, features[0], features[1]


def torch_fidelity(folder: Path) -> Found:
    """As its script calls it."""
    from torch_fidelity import calculate_metrics, metric_fid

    features = recorded(metric_fid, "extract_featuresdict_from_input_id_cached")
    found = calculate_metrics(
        input1=str(folder / "a"),
        input2=str(folder / "b"),
        fid=True,
        cuda=False,
        cache=False,
        feature_layer_fid=FLAGS.dims,
        feature_extractor_weights_path=str(folder / HUB),
        verbose=False,
    )
    return found[metric_fid.KEY_METRIC_FID], *(part[FLAGS.dims].numpy() for part in features)


SIDES: dict[str, Callable[[Path], Found]] = {
    "pytorch-fid": pytorch_fid,
    "clean-fid": clean_fid,
    "torch-fidelity": torch_fidelity,
}


def play(side: str, folder: Path) -> None:
    """A peer's turn: writes its figure and features to a file."""
    if side == "weights":
        write_weights(folder, FLAGS.seed)
        return
    import torch

    torch.set_num_threads(FLAGS.threads)
    figure, a, b = SIDES[side](folder)
    np.savez(folder / "peer.npz", figure=figure, a=a, b=b)


class Turn(NamedTuple):
    """A finished command: its seconds, its seconds summed over cores, and its result."""

    seconds: float
    cpu_seconds: float
    found: Found

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s ({self.cpu_seconds:.1f} of cores)"


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Runs a command on the cores of all sides; returns its seconds, and its seconds summed over cores."""
    environment = dict(os.environ) | {"TORCH_HOME": str(folder)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else stale bytecode is compiled again in every turn
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def side_command(side: str, folder: Path) -> list[str]:
    """This module as one of the other processes."""
    options = [f"--{name}={FLAGS[name].value}" for name in ("dims", "threads", "seed")]
    return [sys.executable, "-m", "benchmarks.fid_peers", f"--side={side}", f"--folder={folder}", *options]


def peer_turn(peer: str, folder: Path) -> Turn:
    """One turn of a peer."""
    times = timed(side_command(peer, folder), folder)
    with np.load(folder / "peer.npz") as file:
        return Turn(*times, (float(file["figure"]), file["a"], file["b"]))


def our_turn(peer: str, folder: Path) -> Turn:
    """Our script in a peer's protocol, with an empty cache, so that all features are computed."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        run = Path(name) / "run"
        flag_values = {
            "protocol": PROTOCOLS[peer],
            "weights": folder / HUB,
            "dims": FLAGS.dims,
            "metrics": "",
            "devices": "cpu",
            "cache_dir": Path(name) / "cache",
            "run_dir": run,
        }
        command = [sys.executable, "-m", "experiments.fid", str(folder / "a"), str(folder / "b")]
        times = timed(command + [f"--{flag}={value}" for flag, value in flag_values.items()], folder)
        a, b = (np.load(run / f"{side}_features.npy")[:, : int(FLAGS.dims)] for side in "ab")
        return Turn(*times, (json.loads((run / "result.json").read_text())["fid"], a, b))


def say_difference(peer: str, ours: Found, theirs: Found) -> None:
    """Prints the difference of the figures, and which part of it comes from distances and from features."""
    from diffusion.fid.frechet import frechet_distance_of_features

    same = frechet_distance_of_features(*(part.astype(np.float64) for part in theirs[1:]))
    errors = [np.abs(a - b).max() / b.std() for a, b in zip(ours[1:], theirs[1:], strict=True)]
    print(f"{peer}: FID {theirs[0]:.9f}, ours {ours[0]:.9f}, relative difference {abs(ours[0] / theirs[0] - 1):.1e}")
    print(f"  of its features, our distance is {same:.9f}: {abs(same / theirs[0] - 1):.1e} from its own")
    print(f"  of both networks' features, our distances differ by {abs(ours[0] / same - 1):.1e};", end=" ")
    print(f"the features by at most {max(errors):.1e} of their spread")


def compare(peer: str, folder: Path) -> None:
    """Runs turns of ours and of a peer, and prints differences and ratios."""
    turns: dict[str, list[Turn]] = {"ours": [], peer: []}
    for number in range(FLAGS.rounds):
        for side in turns:
            turns[side].append(our_turn(peer, folder) if side == "ours" else peer_turn(peer, folder))
        said = ", ".join(f"{side} {part[-1]}" for side, part in turns.items())
        print(f"{peer}, round {number + 1}: {said}; load {os.getloadavg()[0]:.1f}", flush=True)
    say_difference(peer, turns["ours"][-1].found, turns[peer][-1].found)
    seconds = [median(turn.seconds for turn in part) for part in turns.values()]
    of_cores = [median(turn.cpu_seconds for turn in part) for part in turns.values()]
    print(f"  ours {seconds[0]:.1f} s, {peer} {seconds[1]:.1f} s: {seconds[1] / seconds[0]:.2f} ×", end=" ")
    print(f"({of_cores[1] / of_cores[0]:.2f} × by seconds of cores), medians of {FLAGS.rounds}", flush=True)


def main(argv: list[str]) -> None:
    """Makes files and weights, then compares ours with every peer."""
    keep_to_cores(FLAGS.threads)
    if FLAGS.side:
        play(FLAGS.side, Path(FLAGS.folder))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(FLAGS.folder or name).absolute()
        if not (folder / "a").exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_images(folder, Path(FLAGS.data_path), FLAGS.count, FLAGS.size, FLAGS.seed)
        if not (folder / HUB).exists():
            timed(side_command("weights", folder), folder)
        for peer in FLAGS.peers:
            compare(peer, folder)


if __name__ == "__main__":
    app.run(main)
