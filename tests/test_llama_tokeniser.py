"""Llama 3's tokens against tiktoken's ids of 4,000 texts (tests/golden/make_llama_tokeniser.py), and the template."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from files.errors import UserError
from tests.llama_texts import texts
from vision_bridge.llama.tokeniser import SPECIAL, Tokeniser, Turn, of_json, of_ranks, read_ranks, read_tokeniser

pytest.importorskip("tiktoken")
pytest.importorskip("tokenizers")
FOLDER = Path(__file__).parent / "golden" / "llama"


@pytest.fixture(scope="module", params=["tokenizer.model", "tokenizer.json"])
def tokeniser(request: pytest.FixtureRequest) -> Tokeniser:
    path = FOLDER / request.param
    return of_json(path) if path.suffix == ".json" else of_ranks(read_ranks(path))


def test_ids_of_4000_texts_are_those_of_tiktoken(tokeniser: Tokeniser) -> None:
    with np.load(FOLDER / "ids.npz") as golden:
        expected = np.split(golden["ids"], golden["ends"][:-1])
    for text, ids in zip(texts(), expected, strict=True):
        assert tokeniser.encode(text) == ids.tolist(), text
        assert tokeniser.decode(ids.tolist()) == text


def test_special_tokens_are_never_made_from_a_text(tokeniser: Tokeniser) -> None:
    assert tokeniser.special == {name: 700 + place for name, place in SPECIAL.items()}
    for name in SPECIAL:
        ids = tokeniser.encode(f"a {name} b")
        assert max(ids) < 700 and tokeniser.decode(ids) == f"a {name} b"
    assert tokeniser.decode([tokeniser.special["<|eot_id|>"], *tokeniser.encode("x")]) == "x"


def test_the_template_by_hand(tokeniser: Tokeniser) -> None:
    start, end = tokeniser.special["<|start_header_id|>"], tokeniser.special["<|end_header_id|>"]
    eot, image = tokeniser.special["<|eot_id|>"], tokeniser.special["<|image|>"]
    encode = tokeniser.encode
    found = tokeniser.prompt([Turn("system", "Be short."), Turn("user", " What is this?\n", 2)])
    expected = [
        tokeniser.special["<|begin_of_text|>"],
        start, *encode("system"), end, *encode("\n\n"), *encode("Be short."), eot,
        start, *encode("user"), end, *encode("\n\n"), image, image, *encode("What is this?"), eot,
        start, *encode("assistant"), end, *encode("\n\n"),
    ]  # fmt: skip
    assert found == expected
    assert tokeniser.answer(" A cat. ") == [*encode("A cat."), eot]


def test_a_checkpoint_has_one_of_the_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer.model and no tokenizer.json; copy one of them"):
        read_tokeniser(tmp_path)
    (tmp_path / "tokenizer.json").write_text((FOLDER / "tokenizer.json").read_text())
    of_model = of_ranks(read_ranks(FOLDER / "tokenizer.model"))
    assert read_tokeniser(tmp_path).encode("the river") == of_model.encode("the river")
    (tmp_path / "original").mkdir()
    (tmp_path / "original" / "tokenizer.model").write_text("not base64 1\n")
    with pytest.raises(UserError, match=r"tokenizer.model: line 1 is not a token in base64 and its rank"):
        read_tokeniser(tmp_path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_text("".join(f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(255)))
    with pytest.raises(UserError, match="255 ranks, not 0, 1, 2, … with every single byte"):
        read_ranks(path)
    path.write_text("YQ== one\n")
    with pytest.raises(UserError, match="line 1 is not a token"):
        read_ranks(path)
    path = tmp_path / "tokenizer.json"
    path.write_text('{"model": 3}')
    with pytest.raises(UserError, match=r"damaged tokenizer.json"):
        of_json(path)
    content = json.loads((FOLDER / "tokenizer.json").read_text())
    content["added_tokens"] = [one for one in content["added_tokens"] if one["content"] != "<|image|>"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"no token <\|image\|>; this is not"):
        of_json(path)
