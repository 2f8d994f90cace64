"""Damaged and hostile checkpoints for their readers: ``python -m tests.fuzz_checkpoints SEED COUNT``.

One file of a tiny published checkpoint (safetensors, shards with their index, PyTorch's files of both forms, with
``vocab.txt`` or ``tokenizer.json``, encoders and whole classifiers of every family) is changed, and the folder is
read.
"""

import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from files.tensors import read_tensors, write_tensors
from tests.fuzzing import main, mutated, results_of
from text_cls.encoders.checkpoints import read_checkpoint
from text_cls.encoders.families import FORMS
from text_cls.encoders.published_classifier import read_head

TINY = Path(__file__).parent / "golden" / "tiny"
FOLDERS = ("bert", "bert_bin", "bert_old_bin", "distilbert", "bert_classifier", "bert_labels", "distilbert_classifier")
ENCODERS = Path(__file__).parent / "golden" / "encoders"
OTHERS = ("roberta", "roberta_old", "xlm_roberta", "camembert", "electra", "albert", "mpnet")
SMALL = (".json", ".txt")


def _sharded(folder: Path) -> dict[str, bytes]:
    """tiny/bert in two shards with their index."""
    tensors, _ = read_tensors(TINY / "bert" / "model.safetensors")
    names = sorted(tensors)
    place = {name: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for shard in sorted(set(place.values())):
        write_tensors(folder / shard, {name: tensors[name] for name in names if place[name] == shard}, {"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in ("config.json", "vocab.txt"):
        (folder / name).write_bytes((TINY / "bert" / name).read_bytes())
    return _files(folder)


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.suffix != ".npy"}


def _read(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    ids = checkpoint.tokeniser().encode("the running [SEP] of \u00e9 \u4e2d </s> \U0001f44d")
    assert min(ids) >= 0 and max(ids) < checkpoint.config.vocabulary_size
    if any(name in FORMS for name in checkpoint.about.get("architectures") or []):
        read_head(checkpoint)


def fuzz(seed: int, count: int) -> Counter[str]:
    """Reads ``count`` folders; how many were read and refused, by kind."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        seeds = {name: _files(TINY / name) for name in FOLDERS} | {"sharded": _sharded(Path(one))}
        seeds |= {name: _files(ENCODERS / name) for name in OTHERS}
        seeds["roberta_old"]["model.safetensors"] = seeds["roberta"]["model.safetensors"]
        folder = Path(two)

        def prepare(rng: random.Random) -> tuple[str, Callable[[], None]]:
            kind = rng.choice(list(seeds))
            files = dict(seeds[kind])
            others = [content for content in files.values() if content]
            small = [name for name in files if name.endswith(SMALL)]
            for _ in range(rng.choice((1, 1, 2))):
                chosen = rng.choice(small if rng.random() < 0.7 else list(files))
                files[chosen] = mutated(rng, files[chosen], others)
            for old in folder.iterdir():
                old.unlink()
            for name, content in files.items():
                (folder / name).write_bytes(content)
            return kind, lambda: _read(folder)

        return results_of(seed, count, prepare)


if __name__ == "__main__":
    main(fuzz, gibibytes=16)
