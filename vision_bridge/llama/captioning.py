"""Answers of a trained run about pictures, one or a file of them, and its merged checkpoint."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from files.errors import UserError
from training.backends import Placement
from training.session import session
from vision_bridge.llama.caption_config import CaptionConfig
from vision_bridge.llama.checkpoint import save_checkpoint
from vision_bridge.llama.examples import Example, open_picture
from vision_bridge.llama.generation import Choose, compiled_step, greedy, nucleus
from vision_bridge.llama.objective import merge_lora
from vision_bridge.llama.predictor import Predictor, model_digest
from vision_bridge.llama.questions import (
    Question,
    answered,
    append_answers,
    check_origin,
    check_pictures,
    only_whole_lines,
    read_questions,
    write_origin,
)

USUAL_TOKENS = 256  # most tokens of an answer, if the model has places for them
Write = Callable[[str], None]


def caption(config: CaptionConfig, run_dir: Path, arguments: Sequence[str], write: Write, progress: Write) -> None:
    """Answers one question, or those of a file.

    Args:
        config: every choice.
        run_dir: a finished run of ``finetune``.
        arguments: paths of the pictures, then the question; none with ``config.data_path``, and perhaps none with
            ``config.merge``.
        write: called with the pieces of the answer, or with the lines of answers if there is no file for them.
        progress: called with the number of answered questions of a file.

    Raises:
        UserError: a picture that cannot be read, no question, a file of other answers, or a run that is not finished.
    """
    questions, origin = _asked(config, arguments), _origin(config, run_dir)
    check_pictures(questions, decoded=config.data_path is None)
    _answered(config, questions, origin)
    with session(config) as placement:
        predictor = _loaded(config, run_dir, placement, questions)
        longest = longest_prompt(config, predictor, questions)
        most = config.max_tokens or min(USUAL_TOKENS, predictor.model.config.text.positions - longest)
        config = dataclasses.replace(config, max_tokens=most)
        if config.data_path is not None:
            answer_all(config, predictor, questions, origin, write, progress)
        elif questions:
            for (piece,) in predictor.answers(_opened(questions), most, _choose(config, [0])):
                write(piece)
            write("\n")
        if config.merge is not None:
            merge_lora(predictor.model)
            save_checkpoint(config.merge, predictor.model)


def dry_run(config: CaptionConfig, run_dir: Path, arguments: Sequence[str], write: Write) -> None:
    """Checks the run, every picture and every question, and says what it would answer; writes nothing."""
    questions = _asked(config, arguments)
    pictures = check_pictures(questions, decoded=True)
    done = _answered(config, questions, _origin(config, run_dir))
    with session(config) as placement:
        predictor = _loaded(config, run_dir, placement, questions)
        longest = longest_prompt(config, predictor, questions)
    if questions:
        write(f"questions: {len(questions):,} about {pictures:,} pictures, of at most {longest:,} tokens\n")
    if config.out is not None:
        write(f"{config.out}: {done:,} are answered there, {len(questions) - done:,} would be\n")
    if config.merge is not None:
        write(f"{config.merge}: the merged checkpoint would be there\n")
    write(f"model: {predictor.model.count_params():,} parameters; nothing was written\n")


def _asked(config: CaptionConfig, arguments: Sequence[str]) -> tuple[Question, ...]:
    """The questions; checks the command before the model is loaded."""
    if config.merge is not None and config.merge.exists() and any(config.merge.iterdir()):
        raise UserError(f"--merge={config.merge} is a folder with files in it; name a new one")
    if config.data_path is not None:
        if arguments:
            raise UserError(
                f"{arguments[0]!r} and --data_path={config.data_path}: both have questions; use one of them"
            )
        return read_questions(config.data_path)
    if not arguments and config.merge is None:
        raise UserError(
            'no question was given: pass the paths of its pictures, if any, and then the question ("What is this?"); '
            "or set --data_path=questions.jsonl"
        )
    absent = next((path for path in arguments[:-1] if not Path(path).exists()), None)
    if absent is not None and Path(arguments[-1]).exists():
        raise UserError(f"{absent!r} is no picture, and {arguments[-1]} is a file: the question comes last")
    one = Example(tuple(arguments[:-1]), arguments[-1], "") if arguments else None
    return () if one is None else (Question("the question", one, ""),)


def _answered(config: CaptionConfig, questions: Sequence[Question], origin: dict[str, Any]) -> int:
    """The number of questions with an answer in ``config.out``; raises UserError if something else gave the answers."""
    done = 0 if config.out is None else answered(config.out, questions)
    if config.out is not None and done:
        check_origin(config.out, origin)
    return done


def _origin(config: CaptionConfig, run_dir: Path) -> dict[str, Any]:
    """Everything that answers depend on besides the questions."""
    choices = {"max_tokens": config.max_tokens, "temperature": config.temperature}
    drawn = {"top_p": config.top_p, "seed": config.seed} if config.temperature else {}
    return {"model": model_digest(run_dir)} | choices | drawn


def _loaded(config: CaptionConfig, run_dir: Path, placement: Placement, questions: Sequence[Question]) -> Predictor:
    """The run's model; for --merge, with unquantised published weights.

    Raises:
        UserError: see ``Predictor.of_run``; or questions with --merge and a quantised model.
    """
    predictor = Predictor.of_run(run_dir, placement, config.checkpoint, exact=config.merge is not None)
    if config.merge is not None and questions and predictor.base and predictor.base.quantised != "none":
        raise UserError(
            f"{run_dir} was trained with --quantize={predictor.base.quantised}, and --merge uses the published weights "
            "without rounding, whose answers differ a little; answer the questions without --merge"
        )
    return predictor


def longest_prompt(config: CaptionConfig, predictor: Predictor, questions: Sequence[Question]) -> int:
    """Tokens of the longest question.

    Raises:
        UserError: a question leaves too few places for ``config.max_tokens`` tokens, or for one.
    """
    lengths, places = [0], predictor.model.config.text.positions
    for where, example, _ in questions:
        lengths.append(len(predictor.prompt(example.prompt, len(example.pictures))))
        if lengths[-1] + (config.max_tokens or 1) > places:
            more = f"--max_tokens={config.max_tokens}" if config.max_tokens else "one"
            raise UserError(
                f"{where}: {lengths[-1]:,} tokens and {more} more for the answer do not fit into the {places:,} "
                "positions of the model; shorten the question, or lower --max_tokens"
            )
    return max(lengths)


def answer_all(
    config: CaptionConfig, predictor: Predictor, questions: Sequence[Question], origin: dict[str, Any],
    write: Write, progress: Write,
) -> None:  # fmt: skip
    """Writes a line for each question without one, batch by batch and in order, and ``origin`` to a file of its own."""
    before = 0
    if config.out is not None:
        before = only_whole_lines(config.out, questions)
        write_origin(config.out, origin)
    start, step = time.monotonic(), compiled_step(predictor.model)
    if before:
        progress(f"{config.out}: {before:,} of {len(questions):,} are answered there already, and stay")
    for first in range(before, len(questions), config.batch_size):
        chosen = range(first, min(first + config.batch_size, len(questions)))
        lines = [questions[number].line(text) for number, text in _answers(config, predictor, questions, chosen, step)]
        if config.out is None:
            write("".join(lines))
        else:
            append_answers(config.out, lines)
        progress(_progress(chosen.stop, before, len(questions), time.monotonic() - start))


def _answers(
    config: CaptionConfig, predictor: Predictor, questions: Sequence[Question], chosen: Sequence[int], step: Callable
) -> Iterator[tuple[int, str]]:
    """Numbers and answers of the chosen questions, in order.

    Questions with the same number of pictures are answered together: then no batch has empty places for pictures, which
    would change answers with ``--variant=transformers``.
    """
    assert config.max_tokens is not None  # ``caption`` has set it
    found: dict[int, str] = {}
    for count in sorted({len(questions[number].example.pictures) for number in chosen}):
        numbers = [number for number in chosen if len(questions[number].example.pictures) == count]
        opened = _opened([questions[number] for number in numbers])
        steps = predictor.answers(opened, config.max_tokens, _choose(config, numbers), step)
        found |= zip(numbers, map("".join, zip(*steps, strict=True)), strict=True)
    yield from sorted(found.items())


def _opened(questions: Sequence[Question]) -> list:
    return [([open_picture(path) for path in one.example.pictures], one.example.prompt) for one in questions]


def _choose(config: CaptionConfig, numbers: Sequence[int]) -> Choose:
    """The rule that chooses tokens; a question's random numbers depend on its number only."""
    return nucleus(config.temperature, config.top_p, config.seed, numbers) if config.temperature else greedy


def _progress(done: int, before: int, total: int, seconds: float) -> str:
    rate = (done - before) / max(seconds, 1e-9)
    left = (total - done) / rate
    time_left = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min" if left < 6000 else f"{left / 3600:.1f} h"
    return f"{done:,} of {total:,} answered, {rate:.2f} a second, {time_left} left"
