"""The task of classifying texts with a trained run: a stream of texts → one answer for each."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from files.download import default_cache
from files.errors import UserError
from files.writing import replacing
from text_cls.answers import EXPLAINED, FORMATS, Answer, AnswerLine, Explanation, are_answers, best, lines_of
from text_cls.data.streams import Stream
from text_cls.inputs import CHUNK, InOrder, TextInput, in_chunks, opened, read_inputs
from text_cls.prediction_config import PredictionConfig
from text_cls.predictor import NO_WORDS, Predictor
from text_cls.report.explaining import Explainer, is_exact
from training.hosts import hosts, on_chief, taking_part
from training.placement import make_placement

Write = Callable[[str], Any]
_CHUNK_EXPLAINED = 64  # texts that are explained at a time; explaining a text takes as long as answering a batch


class Summary(NamedTuple):
    """The summary of a stream of texts.

    Attributes:
        texts: number of texts.
        unanswered: number of texts with a reason instead of an answer.
        notes: for readers of the answers.
    """

    texts: int
    unanswered: int
    notes: tuple[str, ...]


def predict(config: PredictionConfig, run_dir: Path | str, texts: Iterable[str], write: Write) -> Summary:
    """Writes ``id,label,class,confidence,note`` lines for every text, in their order, or the same as JSON lines.

    With ``config.explain``, ``explanation,logit,baseline,gap`` follow; see ``answers.Explanation``.

    A text has ``config.top`` lines; with several labels a text, it has a line for every class that reaches its
    threshold. A text without words has one line with only a note, and so has, with ``config.skip_bad_rows``, a row that
    cannot be read. Few texts are in memory at a time; when a ``Stream`` pauses, its texts so far are answered.

    Args:
        config: how texts are read and answered, and where answers go.
        run_dir: the folder of a finished run.
        texts: raw texts, used if ``config`` names no file; their ids are 1, 2, …
        write: is called with the answers if ``config.out`` names no file.

    Raises:
        UserError: there is no text, a text cannot be read, the folder has no trained model, or ``top`` is set for a
            model with several labels a text.
    """
    form, bad = (EXPLAINED if config.explain else FORMATS)[config.format], InOrder(config.skip_bad_rows)
    count = unanswered = inexact = 0
    with taking_part(default_cache()):
        predictor = _load(config, run_dir)
        explainer = Explainer(predictor) if config.explain else None
        with _output(config, write) as put, _progress(config, bad) as advance:
            for chunk in _chunks(config, texts, predictor, bad):
                lines = list(_answered(config, predictor, chunk, explainer))
                put((form.header if not count else "") + form.text(lines))
                count += len(chunk)
                unanswered += sum(line.answer is None for line in lines)
                inexact += sum(line.explanation is not None and not is_exact(line.explanation) for line in lines)
                advance(len(chunk))
    return Summary(count, unanswered, (*bad.notes(), *_notes(inexact)))


def dry_run(config: PredictionConfig, run_dir: Path | str, texts: Iterable[str]) -> None:
    """Loads the model and encodes the texts; writes nothing."""
    count = tokens = unanswered = 0
    bad = InOrder(config.skip_bad_rows)
    with taking_part(default_cache()):
        predictor = _load(config, run_dir)
        for chunk in _chunks(config, texts, predictor, bad):
            encoded, rows = predictor.read([one.fields for one in chunk if not one.note])
            count, tokens = count + len(chunk), tokens + len(encoded.ids)
            unanswered += len(chunk) - len(rows)
        for note in bad.notes():
            print(f"note: {note}")
        without = f", {unanswered:,} without an answer" if unanswered else ""
        parameters = predictor.model.count_params()
        print(f"{count:,} texts, {tokens:,} tokens{without}; {parameters:,} parameters; nothing was written")


def _notes(inexact: int) -> list[str]:
    """Notes for readers of explanations."""
    if not inexact:
        return []
    return [f"explanations that miss the logit by more than 1 %: {inexact:,}; their gap says by how much"]


def _load(config: PredictionConfig, run_dir: Path | str) -> Predictor:
    placement = make_placement(config.devices)
    on_chief(lambda: _check_out(config.out))
    predictor = Predictor.load(run_dir, placement, config.join_fields)
    if predictor.multi_label and config.top != 1:
        raise UserError(
            f"--top={config.top}: this model gives a text any number of labels, and every class above its threshold is "
            "listed; leave out --top"
        )
    return predictor


def _chunks(
    config: PredictionConfig, texts: Iterable[str], predictor: Predictor, bad: InOrder
) -> Iterator[Sequence[TextInput]]:
    """The texts, which only the chief of several hosts reads."""
    walk = _walk(config, texts, predictor, bad) if hosts().chief else iter(())
    while chunk := on_chief(lambda: next(walk, None)):
        yield [TextInput(identity, tuple(fields), note) for identity, fields, note in chunk]


def _walk(
    config: PredictionConfig, texts: Iterable[str], predictor: Predictor, bad: InOrder
) -> Iterator[list[TextInput]]:
    with opened(config, texts) as (config, texts):
        pauses = texts.pauses if config.path is None and isinstance(texts, Stream) else None
        inputs = read_inputs(_with_fields(config, predictor), texts, bad, predictor.wrong_number)
        yield from in_chunks(inputs, _CHUNK_EXPLAINED if config.explain else CHUNK, pauses)


def _with_fields(config: PredictionConfig, predictor: Predictor) -> PredictionConfig:
    """The columns that the model was trained on, unless others are named; raises UserError for impossible ones."""
    given, own = config.text_fields, predictor.fields
    if config.dataset not in ("csv", "jsonl"):
        return config
    if sorted(given) == sorted(own) and given != own:
        raise UserError(f"--text_fields={','.join(given)}: the model was trained with {','.join(own)}, in this order")
    chosen = given or own or ("text",)
    if wrong := predictor.wrong_number(len(chosen)):
        raise UserError(f"--text_fields={','.join(chosen)}: {wrong}")
    return dataclasses.replace(config, text_fields=chosen)


def _answered(
    config: PredictionConfig, predictor: Predictor, chunk: Sequence[TextInput], explainer: Explainer | None = None
) -> Iterator[AnswerLine]:
    """The lines of each input, with explanations if there is an ``explainer``."""
    readable = [place for place, one in enumerate(chunk) if not one.note]
    encoded, rows = predictor.read([chunk[place].fields for place in readable])
    probabilities = predictor.probabilities(encoded)
    if not np.isfinite(probabilities).all():
        raise UserError("the outputs of the model are not finite numbers; train it again")
    found = best(probabilities, predictor.classes, config.top, predictor.thresholds)
    answers = dict(zip((readable[row] for row in rows), found, strict=True))
    why = _explained(explainer, chunk, answers) if explainer else {}
    for place, one in enumerate(chunk):
        if place in answers:
            yield from lines_of(one.id, answers[place], explanations=why.get(place, ()))
        else:
            yield from lines_of(one.id, (), one.note or NO_WORDS)


def _explained(
    explainer: Explainer, chunk: Sequence[TextInput], answers: dict[int, list[Answer]]
) -> dict[int, list[Explanation]]:
    """The explanations of the answers, by number of the input."""
    asked = [(place, answer.label) for place, own in answers.items() for answer in own]
    why: dict[int, list[Explanation]] = {}
    found = explainer([chunk[place].fields for place, _ in asked], [label for _, label in asked])
    for (place, _), explanation in zip(asked, found, strict=True):
        why.setdefault(place, []).append(explanation)
    return why


def _check_out(out: Path | None) -> None:
    """Raises UserError if ``out`` exists and is no file of answers."""
    if out is None or not os.path.lexists(out):
        return
    if not out.is_file():
        what = "a folder" if out.is_dir() else "no regular file"
        raise UserError(f"--out={out} is {what}; name a new file, or leave --out out for standard output")
    with out.open(encoding="utf-8", errors="replace", newline="") as file:
        if not are_answers(file.readline(2**16)):
            raise UserError(f"--out={out} exists and is not a file of answers; name a new file, or remove this one")


@contextmanager
def _output(config: PredictionConfig, write: Write) -> Iterator[Write]:
    """What takes the answers."""
    if config.out is None:
        yield write
        return
    with replacing(config.out) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        yield file.write


@contextmanager
def _progress(config: PredictionConfig, bad: InOrder) -> Iterator[Callable[[int], None]]:
    """Keras' bar on standard error, where that is a terminal and the answers go elsewhere; of a file's bytes."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if not terminal or not hosts().chief or (config.out is None and sys.stdout.isatty()):
        yield lambda count: None
        return
    size = config.path.stat().st_size if config.path is not None and config.path.is_file() else None
    with contextlib.redirect_stdout(sys.stderr):
        bar = keras.utils.Progbar(size, unit_name="text" if size is None else "byte")
    count = 0

    def show(at: int, end: bool = False) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            bar.update(at, finalize=end)

    def advance(more: int) -> None:
        nonlocal count
        count += more
        at = bad.position()
        show(count if size is None else size if at is None else at)

    yield advance
    show(count if size is None else size, end=True)
