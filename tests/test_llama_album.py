"""Questions with the same picture, whatever its file is called, and the order of the arguments of caption."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from files.errors import UserError
from vision_bridge.llama.caption_config import CaptionConfig
from vision_bridge.llama.captioning import caption
from vision_bridge.llama.examples import Album, album_of


def _album(folder: Path, rows: list[dict]) -> Album:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps({"prompt": "What?", "answer": "a"} | row) + "\n" for row in rows))
    return album_of(path, 0.3, 0.3, 0)


def _pictures(folder: Path, count: int) -> None:
    for number in range(count):
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(folder / f"{number}.png")
        shutil.copy(folder / f"{number}.png", folder / f"copy{number}.png")


def test_copies_of_a_picture_are_in_one_split(tmp_path: Path) -> None:
    _pictures(tmp_path, 12)
    album = _album(tmp_path, [{"image": f"{name}{number}.png"} for number in range(12) for name in ("", "copy", "./")])
    own = [{Path(key).name.removeprefix("copy") for one in part for key in one.pictures}
           for part in album.examples.values()]  # fmt: skip
    assert sum(map(len, own)) == 12 and album.notes == ()


def test_rows_without_pictures_are_split_by_their_prompt(tmp_path: Path) -> None:
    album = _album(tmp_path, [{"prompt": f"Question {number % 9}"} for number in range(36)])
    own = [{one.prompt for one in part} for part in album.examples.values()]
    assert sum(map(len, own)) == 9


def test_a_second_picture_in_two_splits_is_told(tmp_path: Path) -> None:
    _pictures(tmp_path, 12)
    album = _album(tmp_path, [{"images": [f"{number}.png", "copy0.png"]} for number in range(12)])
    sizes = {split: len(part) for split, part in album.examples.items()}
    assert album.notes == tuple(
        f"{sizes[split]} of {sizes[split]} {split} questions show a picture of a training question"
        for split in ("validation", "test")
    )


def test_the_question_comes_last(tmp_path: Path) -> None:
    _pictures(tmp_path, 1)
    with pytest.raises(UserError, match=r"'What\?' is no picture, and .*0\.png is a file: the question comes last"):
        caption(CaptionConfig(), tmp_path, ["What?", str(tmp_path / "0.png")], print, print)
