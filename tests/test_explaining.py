"""What moved a decision: integrated gradients against closed forms, words, and the answers of ``--explain``."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from files.errors import UserError
from tests import little_model
from tests.jax_scripts import Jax
from tests.little_model import HEADER, TEXTS, rows_of
from tests.scripts import ROOT, fails, succeeds
from tests.scripts import run as run_script
from text_cls import prediction
from text_cls.answers import Explanation, are_answers
from text_cls.layers.transformer_config import TransformerConfig
from text_cls.linear.fit import LinearFit
from text_cls.predictor import NO_WORDS, Predictor
from text_cls.report.explained_words import CUT
from text_cls.report.explaining import Explainer, _lines, explain, is_exact
from text_cls.report.integrated_gradients import from_embeddings, integrated
from text_cls.tokens.preprocess import SEP, Cleaner, tokenise
from text_cls.tokens.tokenisers import WordTokeniser
from text_cls.tokens.vocabulary import MASK_ID, Vocabulary
from training.placement import make_placement
from training.session import precision

GOLDEN = ROOT / "tests" / "golden"
PLACEMENT = make_placement("cpu", shards=1)
LIBRARY = ("roberta", "xlm_roberta", "camembert", "electra", "albert", "mpnet")
FIELDS = [(text,) for text in TEXTS]
EXPLAINED = HEADER.removesuffix("\n") + ",explanation,logit,baseline,gap\n"


def _own(max_length: int = 16, truncate: str = "head", **config: object) -> Predictor:
    """A classifier of the words of TEXTS with random weights."""
    vocabulary = Vocabulary.build(tokenise(FIELDS, Cleaner()), 100)
    tokeniser = WordTokeniser(Cleaner(), vocabulary, max_length, truncate)
    sizes = {"width": 16, "ffn_width": 16, "num_heads": 2, "num_layers": 2} | config
    return with_random_weights(Predictor(TransformerConfig(len(vocabulary), 3, max_length, **sizes), tokeniser, "abc",
                             PLACEMENT))  # fmt: skip


def with_random_weights(predictor: Predictor) -> Predictor:
    rng = np.random.default_rng(0)
    for variable in predictor.model.trainable_variables:
        variable.assign(rng.normal(0, 0.3, variable.shape))
    return predictor


def is_complete(one: Explanation) -> None:
    """The words' sum is the difference of the logits but for the gap, which is small."""
    difference = one.logit - one.baseline
    assert is_exact(one) and abs(one.gap) <= max(1e-3, 0.01 * abs(difference)) and abs(difference) > 0.01
    assert one.attributions.sum() + one.gap == pytest.approx(difference, abs=1e-9)


@pytest.fixture(scope="module")
def linear() -> tuple[Predictor, Explainer]:
    """Its logits are linear in the vectors of the words."""
    predictor = _own(num_layers=0, norm="post", position="none", pooling="mean")
    return predictor, Explainer(predictor)


@pytest.fixture(scope="module")
def deep() -> tuple[Predictor, Explainer]:
    predictor = _own(bigram_buckets=31, position="learned")
    return predictor, Explainer(predictor)


def test_a_linear_model_in_closed_form(linear: tuple[Predictor, Explainer]) -> None:
    """(e_w − e_mask) · W_k / n for each of the n tokens, <CLS> among them."""
    model, words = linear[0].model, ["the", "good", "film", SEP, "unknown", "goal"]
    table = np.asarray(model.get_layer("encoder").get_layer("embedding").table.embeddings.value) * 4  # √16
    weights = np.asarray(model.get_layer("head").kernel.value)
    ids = linear[0].tokeniser.vocabulary.ids(words)
    for label, found in enumerate(linear[1]([("the good film", "unknown goal")] * 3, range(3))):
        expected = (table[ids] - table[MASK_ID]) @ weights[:, label] / 7
        expected[3] = 0  # what is between the fields stays
        assert found.words == tuple(words) and (found.label, found.cut) == (label, False)
        np.testing.assert_allclose(found.attributions, expected, atol=1e-5)
        assert found.gap == pytest.approx(0, abs=1e-5)


def test_logits_are_those_of_the_text_and_of_the_masked_one(deep: tuple[Predictor, Explainer]) -> None:
    predictor, explainer = deep
    encoded = predictor.encode(FIELDS)
    masked = np.where(encoded.ids >= 5, MASK_ID, encoded.ids).astype(np.int32)
    for name, ids in (("logit", encoded.ids), ("baseline", masked)):
        logits = predictor.logits(type(encoded)(ids, encoded.offsets, encoded.labels))
        for label in range(3):
            found = explainer(FIELDS, [label] * len(FIELDS))
            np.testing.assert_allclose([getattr(one, name) for one in found], logits[:, label], atol=1e-5)
            list(map(is_complete, found))


def test_the_only_word_moves_it_all(deep: tuple[Predictor, Explainer]) -> None:
    (found,) = deep[1]([("bank",)], [1])
    assert found.words == ("bank",)
    assert found.attributions[0] == pytest.approx(found.logit - found.baseline, abs=1e-3)


def test_an_independent_integral(deep: tuple[Predictor, Explainer]) -> None:
    """Midpoints, and differences of logits in place of gradients, for one word, whose vector alone moves at a point."""
    predictor, explainer = deep
    line = _lines(predictor.encode(FIELDS[:1]), [2], predictor.tokeniser)[0]
    below, above = from_embeddings(predictor.model)
    tokens = np.repeat([line.tokens], 200, axis=0)
    start, end = (np.asarray(below(np.array([ids]))) for ids in (line.baseline, line.tokens))
    way = np.zeros_like(end)
    way[:, 2] = (end - start)[:, 2]  # "good", behind <CLS> and "the"
    points = start + ((np.arange(200) + 0.5) / 200)[:, None, None] * (end - start)

    def logits(x: np.ndarray) -> np.ndarray:
        return np.asarray(above(*map(keras.ops.convert_to_tensor, (x, tokens))))[:, 2]

    slopes = (logits(points + 1e-2 * way) - logits(points - 1e-2 * way)) / 2e-2
    (found,) = explainer(FIELDS[:1], [2])
    assert found.words[1] == "good" and found.attributions[1] == pytest.approx(slopes.mean(), abs=2e-3)


def test_neither_padding_nor_other_texts_change_anything(deep: tuple[Predictor, Explainer]) -> None:
    predictor, explainer = deep
    among = explainer(FIELDS, [0] * len(FIELDS))
    for text, one in zip(FIELDS, among, strict=True):
        (alone,) = explainer([text], [0])
        np.testing.assert_allclose(alone.attributions, one.attributions, atol=1e-5)
        assert alone.words == one.words and alone.logit == pytest.approx(one.logit, abs=1e-5)
    lines = _lines(predictor.encode(FIELDS), [0] * len(FIELDS), predictor.tokeniser)
    for length in (8, 16):
        found = integrated(lines, explainer._slopes, np.array([length, 16]))
        for slope, one in zip(found, among, strict=True):
            np.testing.assert_allclose(slope.tokens[1:], one.attributions, atol=1e-5)


@pytest.mark.parametrize(
    ("truncate", "max_length", "words"),
    [
        ("head", 4, f"the goal by {CUT}"),
        ("tail", 4, f"{CUT} of the team"),
        ("head_tail", 8, f"the {CUT} by the striker of the team"),
        ("head", 9, "the goal by the striker of the team"),
        ("windows", 5, "the goal by the striker of the team"),
    ],
)
def test_words_that_are_not_read(
    linear: tuple[Predictor, Explainer], monkeypatch: pytest.MonkeyPatch, truncate: str, max_length: int, words: str
) -> None:
    shorter = dataclasses.replace(linear[0].tokeniser, max_length=max_length, truncate=truncate)
    monkeypatch.setattr(linear[0], "tokeniser", shorter)
    (found,) = linear[1](FIELDS[3:4], [0])
    assert " ".join(found.words) == words and found.cut == (CUT in words)
    assert [value == 0 for value in found.attributions] == [word == CUT for word in found.words]
    is_complete(found)


def test_a_linear_path_beside_the_network(linear: tuple[Predictor, Explainer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its contributions are added word by word, those of words that the network does not read too."""
    predictor, explainer = linear
    monkeypatch.setattr(predictor, "tokeniser", dataclasses.replace(predictor.tokeniser, max_length=4))
    texts = [*FIELDS[3:4], *FIELDS[:1]]
    alone = explainer(texts, [2, 1])
    rng = np.random.default_rng(0)
    bias, added = rng.normal(size=3), rng.normal(size=(11, 3)).astype(np.float32)  # of 8 words and 3
    path = SimpleNamespace(bias=bias, contributions=lambda _, k: added[np.arange(11), np.repeat(k, [8, 3])])
    monkeypatch.setattr(predictor, "linear", path)  # without scores, which nobody needs
    calls, tokenise = [], WordTokeniser.tokenise
    monkeypatch.setattr(WordTokeniser, "tokenise", lambda *given: calls.append(given) or tokenise(*given))
    both = explainer(texts, [2, 1])
    assert both[0].words == tuple(TEXTS[3].split()) and both[0].cut and len(calls) == 1
    np.testing.assert_allclose(both[0].attributions[:3], alone[0].attributions[:3] + added[:3, 2], atol=1e-6)
    np.testing.assert_allclose(both[0].attributions[3:], added[3:8, 2], atol=1e-6)
    np.testing.assert_allclose(both[1].attributions, alone[1].attributions + added[8:, 1], atol=1e-6)
    assert both[0].logit == pytest.approx(alone[0].logit + added[:8, 2].sum() + bias[2], abs=1e-5)
    assert both[0].baseline == pytest.approx(alone[0].baseline + bias[2], abs=1e-5)
    list(map(is_complete, both))


def test_logits_with_a_fitted_linear_path(linear: tuple[Predictor, Explainer], monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, explainer = linear
    corpus, labels = predictor.tokeniser.tokenise(FIELDS), np.array([0, 1, 2, 0, 1])
    fit = LinearFit.of("parts", [corpus, corpus], [labels, labels], 3, None)
    assert fit is not None
    monkeypatch.setattr(predictor, "linear", fit.path(5.0))
    logits = predictor.logits(predictor.encode(FIELDS))
    for label in range(3):
        found = explainer(FIELDS, [label] * len(FIELDS))
        np.testing.assert_allclose([one.logit for one in found], logits[:, label], atol=1e-4)
        list(map(is_complete, found))


def test_no_words_is_the_users_mistake(linear: tuple[Predictor, Explainer]) -> None:
    with pytest.raises(UserError, match=r"text 2 .* has no words"):
        linear[1]([("film",), ("<br>",)], [0, 0])
    assert linear[1]([], []) == []


@pytest.mark.parametrize(("name", "tolerance"), [("mixed_bfloat16", 1e-5), ("bfloat16", 0.05)])
def test_bfloat16_is_explained_in_float32(linear: tuple[Predictor, Explainer], name: str, tolerance: float) -> None:
    """Its roundings are larger than the part of most words; weights that are that too are what they are."""
    with precision(name):
        rounded = _own(num_layers=0, norm="post", position="none", pooling="mean")
    exact = linear[1](FIELDS[3:], [1, 2])
    for found, one in zip(explain(rounded, FIELDS[3:], [1, 2]), exact, strict=True):
        assert found.gap == pytest.approx(0, abs=1e-5)
        np.testing.assert_allclose(found.attributions, one.attributions, atol=tolerance)


# ------------------------------------------------------------------------------------------------------------- answers


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Predictor, Path]:
    folder = tmp_path_factory.mktemp("run")
    return little_model.save(folder), folder


@pytest.fixture(scope="module")
def explainer(run: tuple[Predictor, Path]) -> Explainer:
    """That of the run, compiled once."""
    return Explainer(run[0])


@pytest.fixture
def ready(explainer: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """``predict_text`` need not compile it anew."""
    monkeypatch.setattr(prediction, "Explainer", lambda predictor: explainer)


@pytest.mark.usefixtures("ready")
def test_answers_in_csv(run: tuple[Predictor, Path], explainer: Explainer) -> None:
    folder = run[1]
    texts = [TEXTS[0], "<br>", "the goal by the striker of the team and more of it"]
    plain = succeeds("predict_text", f"--run_dir={folder}", *texts)
    answers = succeeds("predict_text", f"--run_dir={folder}", "--explain", *texts)
    rows = rows_of(answers)
    assert answers.startswith(EXPLAINED)
    assert [{name: row[name] for name in rows_of(plain)[0]} for row in rows] == rows_of(plain)
    assert rows[1]["note"] == NO_WORDS and not any(rows[1][name] for name in ("explanation", "logit", "gap"))
    found = explainer([(texts[0],), (texts[2],)], [int(rows[0]["label"]), int(rows[2]["label"])])
    for row, one in zip((rows[0], rows[2]), found, strict=True):
        strongest = sorted(zip(one.words, one.attributions, strict=True), key=lambda pair: -abs(pair[1]))
        expected = [f"{word}:{value:+.2f}" for word, value in strongest if word != CUT]
        assert row["explanation"].split(" ") == expected[:10]
        assert float(row["logit"]) - float(row["baseline"]) == pytest.approx(sum(one.attributions), abs=1e-2)
    assert found[1].cut and not found[0].cut


@pytest.mark.usefixtures("ready")
def test_answers_in_json(run: tuple[Predictor, Path]) -> None:
    """One for every class that is listed."""
    base = ["predict_text", f"--run_dir={run[1]}", "--explain", "--format=jsonl", "--top=3"]
    lines = [json.loads(line) for line in succeeds(*base, TEXTS[1], "<br>").splitlines()]
    assert len(lines) == 4 and [line["explanation"] is None for line in lines] == [False] * 3 + [True]
    for line in lines[:3]:
        assert [word for word, _ in line["explanation"]] == TEXTS[1].split() and line["cut"] is False
        total = sum(value for _, value in line["explanation"])
        assert total + line["gap"] == pytest.approx(line["logit"] - line["baseline"], abs=1e-4)
    logits = {line["label"]: line["logit"] for line in lines[:3]}
    expected = run[0].logits(run[0].encode([(TEXTS[1],)]))[0]
    np.testing.assert_allclose([logits[label] for label in range(3)], expected, atol=1e-5)
    assert len({tuple(value for _, value in line["explanation"]) for line in lines[:3]}) == 3


@pytest.mark.usefixtures("ready")
def test_answers_with_explanations_are_answers(run: tuple[Predictor, Path], tmp_path: Path) -> None:
    """They are replaced by others, as those without are; nothing else is."""
    out = tmp_path / "answers.csv"
    base = ["predict_text", f"--run_dir={run[1]}", f"--out={out}", "the film"]
    for more in (["--explain", "--format=jsonl"], ["--explain"], []):
        succeeds(*base, *more)
    out.write_text(EXPLAINED.replace("gap", "text"))
    assert "is not a file of answers" in fails(*base, "--explain")
    assert not are_answers('{"id": 1, "explanation": []}\n')


@pytest.mark.usefixtures("ready")  # of the same weights
def test_every_label_above_its_threshold(tmp_path: Path) -> None:
    predictor = little_model.save(tmp_path, multi_label=True)
    rows = rows_of(succeeds("predict_text", f"--run_dir={tmp_path}", "--explain", *TEXTS))
    logits = predictor.logits(predictor.encode(FIELDS))
    assert len({row["id"] for row in rows}) == len(TEXTS) < len(rows)
    for row in rows:
        assert bool(row["explanation"]) == bool(row["label"]) != bool(row["note"])
        if row["label"]:
            assert float(row["logit"]) == pytest.approx(logits[int(row["id"]) - 1, int(row["label"])], abs=1e-5)


@pytest.mark.usefixtures("ready")
def test_what_is_not_exact_is_said(run: tuple[Predictor, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "is_exact", lambda explanation: False)
    done = run_script("predict_text", f"--run_dir={run[1]}", "--explain", "the film", "<br>")
    assert "note: explanations that miss the logit by more than 1 %: 1; " in done.stderr


@pytest.fixture(scope="module")
def jax() -> Iterator[Jax]:
    pytest.importorskip("jax")
    process = Jax()
    yield process
    process.close()


@pytest.mark.slow
def test_the_same_on_jax(run: tuple[Predictor, Path], jax: Jax) -> None:
    command = ["predict_text", f"--run_dir={run[1]}", "--explain", "--format=jsonl", *TEXTS]
    answers = [
        [json.loads(line) for line in said.splitlines()] for said in (succeeds(*command), jax.succeeds(*command))
    ]
    for one, two in zip(*answers, strict=True):
        assert [word for word, _ in one["explanation"]] == [word for word, _ in two["explanation"]]
        for name in ("logit", "baseline", "gap"):
            assert one[name] == pytest.approx(two[name], abs=1e-4)
        values = [[value for _, value in line["explanation"]] for line in (one, two)]
        np.testing.assert_allclose(*values, atol=1e-4)
