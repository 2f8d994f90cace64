"""Remakes encoders/: tiny classifiers of seven kinds with ``transformers`` (made with 5.24.0, tokenizers 0.23.3).

    pip install transformers==5.24.0 torch==2.13.0 sentencepiece==0.2.3 protobuf
    PYTHONPATH=. python -m tests.golden.make_encoders

Every folder is what ``save_pretrained`` writes of a random ...ForSequenceClassification and of its tokeniser, and
NAME.npz beside it holds what ``transformers`` answers; ``answers`` says which arrays. The tokenisers are small, but
of the published form (that of the converters in transformers/convert_slow_tokenizer.py):

- roberta: byte-level BPE, <s> <pad> </s> <unk> are 0 to 3, <mask> is the last and takes the space before it.
  ``roberta_old`` has the same pieces as vocab.json and merges.txt, and no weights.
- xlm_roberta, camembert: SentencePiece's Unigram; a character map (a part of nmt_nfkc), then WhitespaceSplit and
  Metaspace. XLM-R moves the special tokens; CamemBERT keeps SentencePiece's own as ...NOTUSED, and <s> </s> are added.
  ``xlm_roberta_metaspace`` is a tokeniser in the form of later conversions (multilingual-e5, bge-m3): map, Strip and
  Replace, then Metaspace alone. Its ids come from ``tokenizers``, for ``transformers`` 5 rebuilds the form above.
- albert: Unigram; quotes, NFKD, accents off, lower case and the map before it; <pad> <unk> [CLS] [SEP] [MASK].
- electra, electra_same (embeddings as wide as the layers): WordPiece as BERT has it.
- mpnet: WordPiece behind <s> <pad> </s> <unk>, with BERT's special tokens among the pieces, and <mask> the last.

Each epsilon is the published one in some folders and so large in others that a wrong one is seen.
"""

import io
import json
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
import transformers as hf
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import CamembertConverter, SentencePieceExtractor, XLMRobertaConverter

from tests.golden.lines import lines
from tests.golden.make_bert import randomise
from tests.golden.pairs import PAIRS

HERE = Path(__file__).parent / "encoders"
CLASSES = ("boat", "garden", "kitchen")
CUT = 16  # tokens of a pair that is cut
TEXTS = (
    "The running of transformers",
    "Café naïve RÉSUMÉ, Ångström e\u0301 o\u0308 Dvořák",
    "中文 漢字, 日本語 テスト 한국어",
    "I'm  happy 👍 👩‍👩‍👧 ❤️ … “quoted” ``old'' style",
    "",
    " ",
    "\t\u00a0 two  spaces\u200b\nand a line\u2028of\x85running\u3000",
    "see <mask> here, </s> and <s>; [SEP] [MASK]x[CLS] <unk>",
    "ﬁnance ½ Ⅻ ａｂｃ™ ℃ 3.14159 1,000,000 $5.00 C++",
    "the word of running transformers, and the state of it; " * 30,
    "ＴＨＥ İstanbul straße ΣΊΣΥΦΟΣ Москва Ёлка",
    "con\x00trol \x07 \u202e \ufffd \U0010ffff",
)
LITERAL_PAD = "the <pad> of [PAD] and"  # in the attention, though it has the id of padding
BATCH = (1, 9, 0)  # texts that are padded together
MORE_PAIRS = (("Café  naïve, see <mask> here", "and </s> 👍 there"), ("", ""))


def sentences() -> list[str]:
    """Those of ``lines`` that are made of words; without control characters, and not in every script."""
    kept = (line.split() for i, line in enumerate(lines()) if i % 7 < 2)
    return [" ".join(word for word in words if all(map(_is_taken, word)) and word[0] != "[") for words in kept]


def _is_taken(c: str) -> bool:
    return unicodedata.category(c)[0] != "C" and not "\u0590" <= c < "\u1100"


def roberta_tokeniser(length: int) -> Any:
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.train_from_iterator(sentences(), trainer)
    model = json.loads(trained.to_str())["model"]
    vocabulary = model["vocab"] | {"<mask>": len(model["vocab"])}
    merges = [tuple(merge) for merge in model["merges"]]
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return hf.RobertaTokenizer(vocab=vocabulary, merges=merges, mask_token=mask, model_max_length=length)


def unigram(texts: list[str], size: int, **special: Any) -> tuple[list[tuple[str, float]], bytes]:
    """SentencePiece's pieces with their scores, and its map of characters."""
    mapped = [*range(0xFF01, 0xFF5F), *range(0xFB00, 0xFB05), *range(0x2160, 0x216C), *range(0x2000, 0x200B),
              0xA0, 0xBD, 0x2026, 0x2103, 0x2122, 0x3000]  # fmt: skip
    rules = [(chr(code), unicodedata.normalize("NFKC", chr(code))) for code in mapped]
    composed = [base + accent for base in "aeo" for accent in "\u0301\u0308"]
    rules += [(pair, unicodedata.normalize("NFC", pair)) for pair in composed]
    rules += [(c, " ") for c in "\t\n\r\u200b"] + [(c, "") for c in "\x07\ufeff"]
    written = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        table, model = Path(folder) / "rules.tsv", Path(folder) / "spm.model"
        coded = (tuple(" ".join(f"{ord(c):04X}" for c in part) for part in rule) for rule in rules)
        table.write_text("".join(f"{old}\t{new}\n" for old, new in coded))
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=written, model_type="unigram", vocab_size=size, num_threads=1,
            character_coverage=0.98, normalization_rule_tsv=str(table), minloglevel=2, **special,
        )  # fmt: skip
        model.write_bytes(written.getvalue())
        found = SentencePieceExtractor(str(model)).extract(models.Unigram)
    return found["vocab"], found["_spm_precompiled_charsmap"]


def xlm_roberta_tokeniser(length: int) -> Any:
    pieces, charsmap = unigram(sentences(), 300)
    vocabulary = XLMRobertaConverter.convert_from_spm(vocab=pieces)["vocab"]
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return hf.XLMRobertaTokenizer(
        vocab=vocabulary, _spm_precompiled_charsmap=charsmap, mask_token=mask, model_max_length=length
    )


def camembert_tokeniser(length: int) -> Any:
    pieces, charsmap = unigram(sentences(), 280)
    vocabulary = CamembertConverter.convert_from_spm(vocab=pieces)["vocab"]
    return hf.CamembertTokenizer(vocab=vocabulary, _spm_precompiled_charsmap=charsmap, model_max_length=length)


def albert_tokeniser(length: int) -> Any:
    before = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()])
    special = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}
    pieces, charsmap = unigram([before.normalize_str(line) for line in sentences()], 260, **special)
    mask = AddedToken("[MASK]", lstrip=True, special=True)
    return hf.AlbertTokenizer(
        vocab=pieces, _spm_precompiled_charsmap=charsmap, mask_token=mask, model_max_length=length
    )


def wordpieces(size: int) -> list[str]:
    """Frequent characters, alone and inside words, then frequent beginnings and ends of words, sorted.

    Not trained: the library's trainer for WordPiece gives other pieces at every run.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = [w for line in sentences() for w, _ in splitter.pre_tokenize_str(normalizer.normalize_str(line))]
    characters = most_frequent([c for word in words for c in word], 80)
    pieces = [*characters, *(f"##{c}" for c in characters if c.isalnum())]
    words = [word for word in words if set(characters).issuperset(word)]
    longer = [part for w in words for n in range(2, len(w)) for part in (w[:n], f"##{w[n - 1 :]}", w)]
    return sorted([*pieces, *most_frequent(longer, size - len(pieces))])


def most_frequent(found: list[str], count: int) -> list[str]:
    counts = Counter(found)
    return sorted(counts, key=lambda piece: (-counts[piece], piece))[:count]


def electra_tokeniser(length: int) -> Any:
    words = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *wordpieces(310)]
    return hf.BertTokenizer(vocab=numbered(words), do_lower_case=True, model_max_length=length)


def mpnet_tokeniser(length: int) -> Any:
    inside = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = ["<s>", "<pad>", "</s>", "<unk>", *inside, *wordpieces(290), "<mask>"]
    return hf.MPNetTokenizer(vocab=numbered(words), do_lower_case=True, model_max_length=length)


def numbered(words: list[str]) -> dict[str, int]:
    return {word: i for i, word in enumerate(words)}


# models: its classes' names, its tokeniser, how many positions no token has, and its sizes

KINDS: dict[str, tuple[str, Callable[[int], Any], int, dict[str, Any]]] = {
    "roberta": ("Roberta", roberta_tokeniser, 2, {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 28,
        "max_position_embeddings": 66, "type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "xlm_roberta": ("XLMRoberta", xlm_roberta_tokeniser, 2, {
        "hidden_size": 20, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
        "max_position_embeddings": 50, "type_vocab_size": 1, "layer_norm_eps": 1e-3}),
    "camembert": ("Camembert", camembert_tokeniser, 2, {
        "hidden_size": 18, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 26,
        "max_position_embeddings": 58, "type_vocab_size": 1, "layer_norm_eps": 1e-5,
        "bos_token_id": 5, "eos_token_id": 6}),
    "electra": ("Electra", electra_tokeniser, 0, {
        "embedding_size": 12, "hidden_size": 20, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 32, "max_position_embeddings": 54, "layer_norm_eps": 1e-3}),
    "electra_same": ("Electra", electra_tokeniser, 0, {
        "embedding_size": 16, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": 44}),
    "albert": ("Albert", albert_tokeniser, 0, {
        "embedding_size": 10, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3,
        "intermediate_size": 34, "max_position_embeddings": 52, "layer_norm_eps": 2e-3}),
    "mpnet": ("MPNet", mpnet_tokeniser, 2, {  # long enough for the last of the 16 distances, which begins at 113
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 30,
        "max_position_embeddings": 162, "layer_norm_eps": 1e-3}),
}  # fmt: skip


def make_folder(name: str) -> None:
    """Writes the folder; its tokeniser, read by ``tokenizers`` alone, gives the same ids."""
    kind, tokeniser_of, behind, sizes = KINDS[name]
    tokeniser = tokeniser_of(sizes["max_position_embeddings"] - behind)
    names = {"id2label": dict(enumerate(CLASSES)), "label2id": {label: i for i, label in enumerate(CLASSES)}}
    config = getattr(hf, f"{kind}Config")(vocab_size=len(tokeniser), **names, **sizes)
    model = getattr(hf, f"{kind}ForSequenceClassification")(config)
    randomise(model)
    model.save_pretrained(HERE / name)
    tokeniser.save_pretrained(HERE / name)
    (HERE / name / "model.safetensors").chmod(0o644)
    alone = Tokenizer.from_file(str(HERE / name / "tokenizer.json"))
    alone.no_truncation()
    for line in (*TEXTS, LITERAL_PAD, *lines()[:700]):
        assert alone.encode(line).ids == tokeniser(line, verbose=False)["input_ids"], (name, line)


def make_old_roberta() -> None:
    """The same pieces in the two files that were published before tokenizer.json."""
    folder = HERE / "roberta_old"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes((HERE / "roberta" / "config.json").read_bytes())
    model = json.loads((HERE / "roberta" / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = ["#version: 0.2", *(" ".join(merge) for merge in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 64}\n')


def make_metaspace() -> None:
    """XLM-R's tokeniser as later conversions write it, and its ids."""
    folder = HERE / "xlm_roberta_metaspace"
    folder.mkdir(exist_ok=True)
    tokeniser = Tokenizer.from_file(str(HERE / "xlm_roberta" / "tokenizer.json"))
    strip, spaces = normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")
    tokeniser.normalizer = normalizers.Sequence([tokeniser.normalizer, strip, spaces])
    tokeniser.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokeniser.no_truncation()
    tokeniser.save(str(folder / "tokenizer.json"))
    for file in ("config.json", "tokenizer_config.json"):
        (folder / file).write_bytes((HERE / "xlm_roberta" / file).read_bytes())
    tokeniser.enable_truncation(KINDS["xlm_roberta"][3]["max_position_embeddings"] - 2)
    rows = [tokeniser.encode(text).ids for text in TEXTS]
    np.savez_compressed(HERE / "xlm_roberta_metaspace.npz", texts=np.array(TEXTS), **ragged("", rows))


def ragged(name: str, rows: list[list[int]]) -> dict[str, np.ndarray]:
    """Rows of ids end to end, and how many belong to each."""
    flat = np.array([x for row in rows for x in row], np.int32)
    return {f"{name}ids": flat, f"{name}lengths": np.array([len(row) for row in rows], np.int32)}


def of_texts(model: Any, tokeniser: Any, texts: list[Any], name: str, **cut: Any) -> dict[str, np.ndarray]:
    """Of texts or pairs, each alone: ids, token types, logits [N, K] and the first token's last state [N, D].

    The types are asked for: version 5 gives ALBERT none unless it is told to, earlier ones did.
    """
    rows, types, logits, first = [], [], [], []
    for text in texts:
        both = text if isinstance(text, tuple) else (text, None)
        cut |= {"truncation": "longest_first", "return_token_type_ids": True, "return_tensors": "pt"}
        encoded = tokeniser(*both, **cut)
        rows.append(encoded["input_ids"][0].tolist())
        types.extend(encoded["token_type_ids"][0].tolist())
        if getattr(model.config, "type_vocab_size", 1) == 1:
            del encoded["token_type_ids"]  # RoBERTa's has one type, MPNet none
        with torch.no_grad():
            out = model(**encoded, output_hidden_states=True)
        logits.append(out.logits[0].numpy())
        first.append(out.hidden_states[-1][0, 0].numpy())
    found = {f"{name}types": np.array(types, np.int32), f"{name}logits": np.stack(logits)}
    return ragged(name, rows) | found | {f"{name}first": np.stack(first)}


def of_batch(model: Any, tokeniser: Any) -> np.ndarray:
    """[layers + 1, tokens of the texts of ``BATCH`` end to end, D]: what each layer gives of texts padded together."""
    encoded = tokeniser([TEXTS[i] for i in BATCH], padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        states = model.base_model(**encoded, output_hidden_states=True)
    assert torch.equal(states.hidden_states[-1], states.last_hidden_state)
    kept = encoded["attention_mask"].bool()
    return np.stack([state[kept].numpy() for state in states.hidden_states]).astype(np.float32)


def answers(folder: Path) -> dict[str, np.ndarray]:
    """What the folder's classifier gives in float64.

    Of ``texts``, each alone and cut to the model's length: ``ids`` (end to end, ``lengths`` of each), token ``types``,
    ``logits``, ``first`` (the first token's last state), and ALBERT's ``pooled``. ``hidden`` is of the texts ``batch``,
    padded together. The same with ``pair_`` of ``pairs``, with ``cut_`` of pairs cut to ``CUT`` tokens by
    longest_first, and with ``literal_pad_`` of one text with the padding's name in it.
    """
    tokeniser = hf.AutoTokenizer.from_pretrained(folder)
    kind = hf.AutoModelForSequenceClassification
    model = kind.from_pretrained(folder, attn_implementation="eager", dtype=torch.float64).eval()
    pairs = [*PAIRS, *MORE_PAIRS]
    found = {"texts": np.array(TEXTS), "pairs": np.array(pairs), "batch": np.array(BATCH, np.int32)}
    found |= of_texts(model, tokeniser, list(TEXTS), "")
    found |= of_texts(model, tokeniser, pairs, "pair_")
    found |= of_texts(model, tokeniser, pairs, "cut_", max_length=CUT)
    found |= of_texts(model, tokeniser, [LITERAL_PAD], "literal_pad_")
    if model.config.model_type == "albert":
        with torch.no_grad():
            pooled = model.albert.pooler_activation(model.albert.pooler(torch.from_numpy(found["first"])))
        found["pooled"] = pooled.numpy()
    return found | {"hidden": of_batch(model, tokeniser)}


def main() -> None:
    """Writes the folders and their answers."""
    for name in KINDS:
        make_folder(name)
        np.savez_compressed(HERE / f"{name}.npz", **answers(HERE / name))
    make_old_roberta()
    make_metaspace()


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    main()
