"""Fine-tuning Llama 3.2 Vision by low-rank updates, and what is refused before."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops
from PIL import Image
from sklearn.datasets import load_digits

from files.errors import UserError
from files.tensors import read_tensors
from tests.little_llama import CONFIG, GOLDEN, pairs_config, write_folder
from tests.scripts import run
from training import loop
from training.backends import Placement
from training.named_arrays import fingerprint
from training.session import session
from vision_bridge.llama.checkpoint import load_checkpoint, published_names, read_config, save_checkpoint
from vision_bridge.llama.digits import digits_album
from vision_bridge.llama.examples import album_of, read_pairs
from vision_bridge.llama.model import LlamaVision, Pictures
from vision_bridge.llama.objective import lora_layers, make_loss_fn, merge_lora
from vision_bridge.llama.predictor import Predictor
from vision_bridge.llama.sight import whole_pictures
from vision_bridge.llama.task import finetune, prepare

pytest.importorskip("tiktoken")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    finetune(pairs_config(folder), folder / "run")
    return folder / "run"


def test_a_checkpoint_that_was_written_reads_back(folder: Path) -> None:
    base = folder / "base"
    assert read_config(base) == CONFIG
    assert len(list(base.glob("model-*.safetensors"))) > 1
    model, again = LlamaVision(CONFIG), LlamaVision(CONFIG)
    load_checkpoint(base, model)
    save_checkpoint(folder / "again", model)
    load_checkpoint(folder / "again", again)
    for (name, variable), found in zip(published_names(model).items(), again.variables, strict=True):
        np.testing.assert_array_equal(variable, found, err_msg=name)


def test_a_run_that_was_stopped_before_its_picture_gets_it(folder: Path, finished: Path) -> None:
    before = (finished / "result.json").read_bytes()
    (finished / "answers.png").unlink()
    finetune(pairs_config(folder), finished)
    assert (finished / "answers.png").exists() and (finished / "result.json").read_bytes() == before


def test_tokens_of_another_checkpoint(folder: Path) -> None:
    with (
        session(pairs_config(folder), pairs_config(folder).training) as placement,
        pytest.raises(UserError, match=r"the tokeniser has a token .*; take both from the same checkpoint"),
    ):
        prepare(pairs_config(folder, checkpoint=GOLDEN), placement)


@pytest.mark.parametrize(("modules", "count"), [("all", 3 * 7), ("attention", 3 * 4), ("cross", 4)])
def test_updates_change_nothing_at_first_and_are_merged_exactly(folder: Path, modules: str, count: int) -> None:
    with session(pairs_config(folder), pairs_config(folder).training) as placement:
        prepared = prepare(pairs_config(folder, lora_modules=modules), placement)
        plain = LlamaVision(CONFIG)
        load_checkpoint(folder / "base", plain)
        batch = prepared.rows["train"].batch(range(4))
        batch = type(batch)(*map(ops.convert_to_tensor, batch))
        loss_of = lambda model: make_loss_fn(model, True)(batch, False, None)["loss"]  # noqa: E731
        np.testing.assert_array_equal(loss_of(prepared.model), loss_of(plain))
        assert len(prepared.model.trainable_variables) == 2 * count
        for layer in lora_layers(prepared.model, modules):
            layer.lora_kernel_b.assign(np.random.default_rng(0).normal(0, 0.3, layer.lora_kernel_b.shape))
        changed = np.asarray(loss_of(prepared.model))
        difference = np.abs(changed - np.asarray(loss_of(plain)))
        seeing = np.asarray(batch.tiles).any(axis=(1, 2)) if modules == "cross" else np.ones(4, bool)
        assert difference[seeing].min() > 1e-4 and seeing.sum() >= 3
        assert not difference[~seeing].any()  # a row without a picture leaves out the layers that look at one
        merge_lora(prepared.model)
        np.testing.assert_allclose(loss_of(prepared.model), changed, rtol=1e-5)


def test_only_updates_are_trained_and_the_base_is_checked(folder: Path, finished: Path, one_replica: Placement) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert result["test_exact_match"] >= 0 and (finished / "answers.png").exists()
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["split"] == "train"]
    assert losses[-1] < losses[0] - 0.1
    predictor, plain = Predictor.of_run(finished, one_replica), LlamaVision(CONFIG)
    load_checkpoint(folder / "base", plain)
    trained = {id(variable) for variable in predictor.model.trainable_variables}
    kept = [variable for variable in predictor.model.variables if id(variable) not in trained]
    assert fingerprint(sorted(kept, key=lambda v: v.path)) == fingerprint(sorted(plain.variables, key=lambda v: v.path))
    assert (finished / "model" / "lora.safetensors").stat().st_size < 20_000
    other = LlamaVision(CONFIG)
    save_checkpoint(folder / "other", other)
    with pytest.raises(UserError, match=r"other weights than .* was trained on"):
        Predictor.of_run(finished, one_replica, folder / "other")


def test_a_merged_checkpoint_answers_as_the_run_does(folder: Path, finished: Path, one_replica: Placement) -> None:
    picture = str(folder / "0.png")
    answer = run(
        "caption", f"--run_dir={finished}", picture, "Which colour?", "--max_tokens=6", f"--merge={folder / 'm'}"
    )
    assert answer.returncode == 0, answer.stderr
    merged = LlamaVision(CONFIG)
    load_checkpoint(folder / "m", merged)
    of_run = Predictor.of_run(finished, one_replica)
    question = [([Image.open(picture)], "Which colour?"), ([], "Say red.")]
    texts = ["".join(parts) for parts in zip(*of_run.answers(question, 6), strict=True)]
    again = ["".join(parts) for parts in zip(*Predictor(merged, of_run.tokeniser).answers(question, 6), strict=True)]
    assert texts == again and answer.stdout == f"{texts[0]}\n"
    wrong = run("caption", f"--run_dir={finished}", str(folder / "none.png"), "What?")
    assert wrong.returncode == 1 and "none.png: cannot be read as a picture" in wrong.stderr
    wrong = run("caption", f"--run_dir={finished}", f"--merge={folder / 'm'}")
    assert wrong.returncode == 1 and "is a folder with files in it" in wrong.stderr


def test_answers_alone_are_learned(folder: Path) -> None:
    """Whatever the prompt's and the padding's tokens are as targets, the loss does not look at them."""
    config = pairs_config(folder)
    with session(config, config.training) as placement:
        prepared = prepare(config, placement)
        rows = prepared.rows["train"]
        batch = rows.batch([0, 4])
        for row, tokens in enumerate(rows.tokens[number] for number in (0, 4)):
            places, count = batch.places[row], len(tokens.ids) - tokens.first
            assert batch.mask[row] == count == batch.weights[row].sum()
            assert tuple(batch.targets[row, :count]) == tokens.ids[tokens.first :]
            assert (places[:count] >= tokens.first - 1).all()
            assert CONFIG.image_token not in batch.targets[row]
        logits = prepared.model(
            *(ops.convert_to_tensor(part) for part in (batch.tokens, batch.real)),
            prepared.model.encode(_pictures(prepared, rows, (0, 4))), ops.convert_to_tensor(batch.seen),
        )  # fmt: skip
        log_p = np.asarray(ops.log_softmax(logits))
        of_row = []
        for row, count in enumerate(batch.mask.astype(int)):
            places, targets = batch.places[row, :count], batch.targets[row, :count]
            of_row.append(-log_p[row, places, targets].mean())
        tensors = type(batch)(*map(ops.convert_to_tensor, batch))
        found = make_loss_fn(prepared.model, True)(tensors, False, None)["loss"]
        np.testing.assert_allclose(found, of_row, rtol=1e-5)


def _pictures(prepared: Any, rows: Any, chosen: tuple[int, ...]) -> Pictures:
    """The tower's input, made anew."""
    shown, most = whole_pictures(prepared.album, CONFIG.vision), rows.lengths[2]
    arrays = [np.zeros((len(chosen), most, *part.shape[1:]), part.dtype) for part in shown[1:]]
    for place, row in enumerate(chosen):
        for number, key in enumerate(rows.examples[row].pictures):
            for array, part in zip(arrays, shown[1:], strict=True):
                array[place, number] = part[shown.number_of[key]]
    return Pictures(*map(ops.convert_to_tensor, arrays))


@pytest.mark.slow
def test_two_replicas_are_one(folder: Path) -> None:
    weights = []
    for devices in ("cpu", "cpu:2"):
        finetune(pairs_config(folder, devices=devices, num_steps=3), folder / f"replicas-{devices.replace(':', '')}")
        (file,) = (folder / f"replicas-{devices.replace(':', '')}" / "model").glob("*.safetensors")
        weights.append(read_tensors(file)[0])
    for name, array in weights[0].items():
        np.testing.assert_allclose(array, weights[1][name], atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_numbers(
    folder: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = []
    right = loop.Checkpointer.save

    def save(self: Any, *args: Any) -> None:
        right(self, *args)
        saves.append(1)
        if len(saves) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Checkpointer, "save", save)
    with pytest.raises(KeyboardInterrupt):
        finetune(pairs_config(folder), folder / "cut")
    finetune(pairs_config(folder), folder / "cut")
    ours, whole = (read_tensors(at / "model" / "lora.safetensors")[0] for at in (folder / "cut", finished))
    for name, array in whole.items():
        np.testing.assert_array_equal(array, ours[name], err_msg=name)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", r"line 2: '\[1\]'|line 2: \[1\] is no object"),
        ('{"prompt": "a"}', "line 2: answer is None; a text that is not empty is needed"),
        ('{"prompt": "a", "answer": " "}', "line 2: answer is ' '; a text"),
        ('{"prompt": 3, "answer": "b"}', "line 2: prompt is 3; a text"),
        (
            '{"image": "0.png", "images": [], "prompt": "a", "answer": "b"}',
            "line 2: it has image and images; use one of them",
        ),
        ('{"images": [3], "prompt": "a", "answer": "b"}', "line 2: .* is no path of a picture and no list of them"),
    ],
)
def test_malformed_rows_are_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "a", "answer": "b"}\n' + line + "\n")
    with pytest.raises(UserError, match=message):
        read_pairs(path)


def test_files_that_are_no_examples(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n\n")
    with pytest.raises(UserError, match="no rows; each line is an object"):
        read_pairs(path)
    path.write_text('{"prompt": "a", "answer": "b"}\n' * 9)
    with pytest.raises(UserError, match="1 pictures or texts are too few for three splits"):
        album_of(path, 0.2, 0.2, 0)
    path.write_text("".join(json.dumps({"image": f"{n}.png", "prompt": "a", "answer": "b"}) + "\n" for n in range(9)))
    with pytest.raises(UserError, match=r"the picture .*0.png cannot be read"):
        album_of(path, 0.2, 0.2, 0)
    done = run("finetune_llama", "--dataset=pairs", f"--data_path={path}")
    assert (
        done.returncode == 1 and "--dataset=pairs needs --data_path=pairs.jsonl and --checkpoint=FOLDER" in done.stderr
    )


def test_questions_about_digits() -> None:
    labels = load_digits().target
    album, control = digits_album(0), digits_album(0, shuffled=True)
    for example in album.examples["test"]:
        digits = [int(number) for key in example.pictures for number in key.split("-")]
        if example.prompt.startswith("Which digit"):
            assert example.answer == str(labels[digits[0]]) and len(digits) == 1
        elif example.prompt.startswith("How many"):
            assert example.answer == str(len(digits)) and album.open(example.pictures[0]).width == 16 * len(digits)
        else:
            assert example.answer == str(max(labels[digits])) and len(digits) == 2
    of_split = [{n for one in part for key in one.pictures for n in key.split("-")} for part in album.examples.values()]
    assert not of_split[0] & of_split[1] and not of_split[0] & of_split[2] and not of_split[1] & of_split[2]
    pairs = zip(album.examples["test"], control.examples["test"], strict=True)
    assert all(a.prompt == b.prompt and a.answer == b.answer for a, b in pairs)
    kept = [a.pictures == b.pictures for a, b in zip(album.examples["test"], control.examples["test"], strict=True)]
    assert np.mean(kept) < 0.05
