"""The files for ``benchmarks.fid_peers``: two folders of images, and the weights of one network."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import app

HUB = "hub/checkpoints/pt_inception-2015-12-05-6726825d.pth"  # where torch keeps the downloaded file
SUFFIXES = (".jpg", ".jpeg", ".png")


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


def write_images(folder: Path, source: Path, count: int, size: int, seed: int) -> None:
    """Writes a/ and b/, ``count`` files each that are drawn at random from ``source``, in one order for every tool.

    ``size``: their width and height, as PNG; 0: the files as they are.
    """
    from PIL import Image

    if not source.exists():
        raise app.UsageError(f"--data_path={source}: there is no such archive or folder")
    files = list(stored(source))
    if len(files) < 2 * count:
        raise app.UsageError(f"{source} has {len(files)} images, fewer than 2 × --count={count}")
    chosen = np.random.default_rng(seed).permutation(len(files))[: 2 * count]
    for place, row in enumerate(chosen):
        name, content = files[row]
        part = folder / ("a" if place < count else "b")
        part.mkdir(exist_ok=True)
        path = part / f"{place:06d}{Path(name).suffix.lower()}"
        if not size:
            path.write_bytes(content)
            continue
        image = Image.open(io.BytesIO(content)).convert("RGB")
        image.resize((size, size), Image.Resampling.BICUBIC).save(path.with_suffix(".png"))


def write_weights(folder: Path, seed: int) -> None:
    """A network as pytorch-fid stores it: random kernels, and batch norms that fit the first images of either side.

    Without the fit, channels of a random network say the same of all images, and nothing is left to compare.
    """
    import torch
    import torch.utils.model_zoo
    from PIL import Image

    torch.manual_seed(seed)
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
