"""FID from two folders of image files to the printed figure: ours beside pytorch-fid, clean-fid and torch-fidelity.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.fid_peers --data_path=../shared/data/cifar10_jpg.tar.zst --count=500
    python -m benchmarks.fid_peers --size=256        # the same pictures as PNG files of 256×256
    python -m benchmarks.fid_peers --dims=192        # more images than features: the distances can be equal

Every side is the whole command in a process of its own, from its start to its end, on the same files and cores, each
with the batch that is its default; peers take turns with ours in the protocol that is theirs. All compute one network
of random weights, whose batch norms fit the images, written once as the file that they download. clean-fid downloads
a TorchScript of the same network instead; here it is given pytorch-fid's in its place, and keeps its reading, resize,
statistics and distance.

A difference of figures is taken apart: ours of the peer's features says what its distance is off by (a square root of
a singular product where images are fewer than features), the features how far two float32 networks are apart.
"""

import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags

from benchmarks.turns import keep_to_cores

FLAGS = flags.FLAGS
flags.DEFINE_string("data_path", "../shared/data/cifar10_jpg.tar.zst", "A tar archive, or a folder, of image files.")
flags.DEFINE_integer("count", 500, "Images of either folder.")
flags.DEFINE_integer("size", 0, "Their width and height, as PNG; 0: the files as they are.")
flags.DEFINE_list("peers", ["pytorch-fid", "clean-fid", "torch-fidelity"], "Whom ours is compared with.")
flags.DEFINE_enum("dims", "2048", ["2048", "768", "192", "64"], "Features: of the last layer, or of an earlier one.")
flags.DEFINE_integer("rounds", 3, "Turns of each side.")
flags.DEFINE_integer("threads", 2, "Cores of each side.")
flags.DEFINE_integer("seed", 0, "Of the weights, and of the choice of images.")
flags.DEFINE_string("side", "", "Internal: the side that this process plays.")
flags.DEFINE_string("folder", "", "Where files are made, and kept; a temporary folder if it is left out.")

PROTOCOLS = {"pytorch-fid": "pytorch-fid", "clean-fid": "clean", "torch-fidelity": "tf2015"}  # peer → --protocol
HUB = "hub/checkpoints/pt_inception-2015-12-05-6726825d.pth"  # where torch keeps the file once it is downloaded
SUFFIXES = (".jpg", ".jpeg", ".png")

Found = tuple[float, np.ndarray, np.ndarray]  # the figure, and features of either side [N, D]


# ---------------------------------------------------------------------------------------------------- files and weights


def stored(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the image files in an archive or a folder."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in SUFFIXES:
                yield str(file), file.read_bytes()
        return
    import zstandard

    with path.open("rb") as raw:
        stream: Any = zstandard.ZstdDecompressor().stream_reader(raw) if path.suffix == ".zst" else raw
        with tarfile.open(fileobj=stream, mode="r|*" if stream is raw else "r|") as archive:
            for member in archive:
                if member.isfile() and Path(member.name).suffix.lower() in SUFFIXES:
                    yield member.name, archive.extractfile(member).read()  # type: ignore[union-attr]


def write_images(folder: Path) -> None:
    """Writes a/ and b/, ``--count`` files each that were drawn at random, in one order for every tool."""
    from PIL import Image

    if not Path(FLAGS.data_path).exists():
        raise app.UsageError(f"--data_path={FLAGS.data_path}: there is no such archive or folder")
    files = list(stored(Path(FLAGS.data_path)))
    if len(files) < 2 * FLAGS.count:
        raise app.UsageError(f"{FLAGS.data_path} has {len(files)} images, fewer than 2 × --count={FLAGS.count}")
    chosen = np.random.default_rng(FLAGS.seed).permutation(len(files))[: 2 * FLAGS.count]
    for place, row in enumerate(chosen):
        name, content = files[row]
        part = folder / ("a" if place < FLAGS.count else "b")
        part.mkdir(exist_ok=True)
        path = part / f"{place:06d}{Path(name).suffix.lower()}"
        if not FLAGS.size:
            path.write_bytes(content)
            continue
        image = Image.open(io.BytesIO(content)).convert("RGB")
        image.resize((FLAGS.size, FLAGS.size), Image.Resampling.BICUBIC).save(path.with_suffix(".png"))


def write_weights(folder: Path) -> None:
    """A network as pytorch-fid stores it: random kernels, and batch norms that fit the first images of either side.

    Without the fit, channels of a random network say the same of all images, and nothing is left to compare.
    """
    import torch
    import torch.utils.model_zoo
    from PIL import Image

    torch.manual_seed(FLAGS.seed)
    # It asks for the file that is being made: an empty one changes nothing.
    torch.utils.model_zoo.load_url = lambda *_, **__: {}
    load, torch.nn.Module.load_state_dict = torch.nn.Module.load_state_dict, lambda self, state: None
    from pytorch_fid.inception import fid_inception_v3

    network = fid_inception_v3()
    torch.nn.Module.load_state_dict = load
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.normal_(module.bias, 0.75, 0.2)
            module.momentum = 1.0
    files = [file for side in "ab" for file in sorted((folder / side).iterdir())[:48]]
    images = [np.asarray(Image.open(file).convert("RGB").resize((299, 299))) for file in files]
    batch = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2) / np.float32(127.5) - 1)
    network.train()
    with torch.no_grad():
        network(batch)
    path = folder / HUB
    path.parent.mkdir(parents=True)
    torch.save(network.state_dict(), path)


# ---------------------------------------------------------------------------------------------------------- the sides


def recorded(module: Any, name: str) -> list[Any]:
    """What a function of a module returns from now on."""
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
    """Its own function with pytorch-fid's network, which is given what clean-fid gives to its own."""
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
    """A peer's turn: its figure and features into a file."""
    if side == "weights":
        write_weights(folder)
        return
    import torch

    torch.set_num_threads(FLAGS.threads)
    figure, a, b = SIDES[side](folder)
    np.savez(folder / "peer.npz", figure=figure, a=a, b=b)


# ------------------------------------------------------------------------------------------------------ the comparison


class Turn(NamedTuple):
    """A command that was run: seconds from its start to its end, and of all its cores, and what it found."""

    seconds: float
    cpu_seconds: float
    found: Found

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s ({self.cpu_seconds:.1f} of cores)"


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Runs a command on as many cores as all sides have; its seconds, and those of the cores."""
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
    """The script in a peer's protocol, with a cache of its own, so that no features are there before."""
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
    """Prints how far the figures are apart, and what of it are the distances and what the features."""
    from diffusion.fid import frechet_distance_of_features

    same = frechet_distance_of_features(*(part.astype(np.float64) for part in theirs[1:]))
    errors = [np.abs(a - b).max() / b.std() for a, b in zip(ours[1:], theirs[1:], strict=True)]
    print(f"{peer}: FID {theirs[0]:.9f}, ours {ours[0]:.9f}, relative difference {abs(ours[0] / theirs[0] - 1):.1e}")
    print(f"  of its features, our distance is {same:.9f}: {abs(same / theirs[0] - 1):.1e} from its own")
    print(f"  of both networks' features, our distances differ by {abs(ours[0] / same - 1):.1e};", end=" ")
    print(f"the features by at most {max(errors):.1e} of their spread")


def compare(peer: str, folder: Path) -> None:
    """Turns of ours and of a peer, and what they are by."""
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
            write_images(folder)
        if not (folder / HUB).exists():
            timed(side_command("weights", folder), folder)
        for peer in FLAGS.peers:
            compare(peer, folder)


if __name__ == "__main__":
    app.run(main)
