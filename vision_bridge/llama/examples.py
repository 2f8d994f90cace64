"""Questions about pictures with their answers: reading ``pairs.jsonl``, and their tokens."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from files.documents import read_text, shown
from files.errors import UserError
from vision_bridge.llama.config import VisionConfig
from vision_bridge.llama.pictures import Tiled, tile
from vision_bridge.llama.tokeniser import Tokeniser, Turn

IMAGE_KEYS = ("image", "images")


@dataclasses.dataclass(frozen=True)
class Example:
    """One question.

    Attributes:
        pictures: keys of the pictures, in the order in which the prompt shows them; perhaps none.
        prompt: the question.
        answer: the answer to learn.
    """

    pictures: tuple[str, ...]
    prompt: str
    answer: str


@dataclasses.dataclass(frozen=True)
class Album:
    """Examples and their pictures.

    Attributes:
        examples: by split: train, validation, test.
        open: key → the picture; raises UserError for one that cannot be read.
        fingerprint: of examples and pictures.
        notes: for the user.
    """

    examples: dict[str, tuple[Example, ...]]
    open: Callable[[str], Image.Image]
    fingerprint: str
    notes: tuple[str, ...] = ()

    @property
    def pictures(self) -> tuple[str, ...]:
        """Every picture once, in the order of their first use."""
        return tuple(dict.fromkeys(key for part in self.examples.values() for one in part for key in one.pictures))

    def describe(self) -> dict[str, Any]:
        """For ``data.json``."""
        sizes = {f"{split}_examples": len(part) for split, part in self.examples.items()}
        return sizes | {"pictures": len(self.pictures), "fingerprint": self.fingerprint}


def read_pairs(path: Path) -> tuple[Example, ...]:
    """The rows of a file: ``prompt``, ``answer``, and ``image`` (a path) or ``images`` (a list of them, perhaps empty).

    Paths are relative to the file's folder.

    Raises:
        UserError: a malformed row, an empty prompt or answer, or no row at all; names the line.
    """
    rows = read_rows(path, "image (or images), prompt and answer")
    return tuple(example_of(row, where, path.parent) for where, row in rows)


def read_rows(path: Path, wanted: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file with one object a line, each with its place for messages; empty lines are left out.

    Raises:
        UserError: a line that is no object, or no line at all; names the line, and ``wanted``: the needed fields.
    """
    rows = 0
    for number, line in enumerate(read_text(path).split("\n"), start=1):  # other line ends may be inside JSON texts
        if line.strip():
            rows += 1
            yield f"{path}: line {number}", _object(line, f"{path}: line {number}", wanted)
    if not rows:
        raise UserError(f"{path}: no rows; each line is an object with {wanted}")


def _object(line: str, where: str, wanted: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}); each line is one object") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: {shown(row)} is no object with {wanted}")
    return row


def example_of(row: dict[str, Any], where: str, folder: Path, answered: bool = True) -> Example:
    """The example that a row describes.

    Args:
        row: as ``read_rows`` yields it.
        where: its place, for messages.
        folder: paths of pictures are relative to it.
        answered: whether the row must have an answer; else the answer may be empty.

    Raises:
        UserError: an empty prompt or answer, or pictures that are not given as paths.
    """
    for name in ("prompt", "answer") if answered or "answer" in row else ("prompt",):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise UserError(f"{where}: {name} is {shown(row.get(name))}; a text that is not empty is needed")
    given = [row[name] for name in IMAGE_KEYS if row.get(name) is not None]
    if len(given) > 1:
        raise UserError(f"{where}: it has image and images; use one of them")
    pictures = given[0] if given else []
    pictures = [pictures] if isinstance(pictures, str) else pictures
    if not isinstance(pictures, list) or not all(isinstance(one, str) and one for one in pictures):
        raise UserError(f"{where}: {shown(given[0])} is no path of a picture and no list of them")
    return Example(tuple(str(folder / one) for one in pictures), row["prompt"], row.get("answer", ""))


def open_picture(path: str) -> Image.Image:
    """A picture file, decoded; raises UserError if it cannot be read."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as a picture ({str(error)[:200]})") from error


def album_of(path: Path, validation_share: float, test_share: float, seed: int) -> Album:
    """The rows of a file, split at random.

    All examples with the same first picture, by its content, are in one split, as are those without pictures that have
    the same prompt.

    Raises:
        UserError: see ``read_pairs``; or a split would be empty.
    """
    examples = read_pairs(path)
    contents = _contents(path, examples)
    groups: dict[Any, list[Example]] = {}
    for example in examples:
        first = tuple(contents[key] for key in example.pictures[:1])
        groups.setdefault(first or example.prompt, []).append(example)
    order = np.random.default_rng(seed).permutation(len(groups))
    counts = [round(share * len(groups)) for share in (validation_share, test_share)]
    ordered = [list(groups.values())[place] for place in order]
    cuts = {
        "validation": ordered[: counts[0]],
        "test": ordered[counts[0] : sum(counts)],
        "train": ordered[sum(counts) :],
    }
    if not all(cuts.values()):
        raise UserError(f"{path}: {len(groups)} pictures or texts are too few for three splits; add rows, or change "
                        "--validation_share and --test_share")  # fmt: skip
    parts = {split: tuple(example for group in part for example in group) for split, part in cuts.items()}
    digest = hashlib.sha256(repr((parts, sorted(contents.items()))).encode())
    ordered_parts = {split: parts[split] for split in ("train", "validation", "test")}
    return Album(ordered_parts, open_picture, digest.hexdigest(), _shared(ordered_parts, contents))


def _contents(path: Path, examples: Sequence[Example]) -> dict[str, str]:
    """SHA-256 of every picture; raises UserError for one that cannot be read."""
    contents = {}
    for key in dict.fromkeys(key for example in examples for key in example.pictures):
        try:
            contents[key] = hashlib.sha256(Path(key).read_bytes()).hexdigest()
        except OSError as error:
            raise UserError(f"{path}: the picture {key} cannot be read ({error.strerror})") from error
    return contents


def _shared(parts: dict[str, tuple[Example, ...]], contents: dict[str, str]) -> tuple[str, ...]:
    """Notes on examples of validation and test that show a picture of a training example."""
    own = {split: {contents[key] for one in part for key in one.pictures} for split, part in parts.items()}
    notes = []
    for split in ("validation", "test"):
        count = sum(any(contents[key] in own["train"] for key in one.pictures) for one in parts[split])
        if count:
            notes.append(f"{count:,} of {len(parts[split]):,} {split} questions show a picture of a training question")
    return tuple(notes)


@dataclasses.dataclass(frozen=True)
class Tokens:
    """An example's tokens.

    Attributes:
        ids: prompt and answer.
        first: place of the answer's first token.
    """

    ids: tuple[int, ...]
    first: int


def tokens_of(example: Example, tokeniser: Tokeniser) -> Tokens:
    """Tokens of an example in the chat template, with its answer and the end token."""
    prompt = tokeniser.prompt([Turn("user", example.prompt, len(example.pictures))])
    return Tokens((*prompt, *tokeniser.answer(example.answer)), len(prompt))


def tiled(album: Album, keys: Sequence[str], config: VisionConfig) -> Iterator[Tiled]:
    """The tiles of pictures."""
    for key in keys:
        yield tile(album.open(key), config)
