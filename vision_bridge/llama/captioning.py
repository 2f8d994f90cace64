"""Answers of a trained run about pictures, and its merged checkpoint."""

from collections.abc import Callable, Sequence
from pathlib import Path

from files.errors import UserError
from training.session import session
from vision_bridge.llama.caption_config import CaptionConfig
from vision_bridge.llama.checkpoint import save_checkpoint
from vision_bridge.llama.examples import open_picture
from vision_bridge.llama.generation import greedy, nucleus
from vision_bridge.llama.objective import merge_lora
from vision_bridge.llama.predictor import Predictor


def caption(config: CaptionConfig, run_dir: Path, arguments: Sequence[str], write: Callable[[str], None]) -> None:
    """Answers one question.

    Args:
        config: every choice.
        run_dir: a finished run of ``finetune``.
        arguments: paths of the pictures, then the question; perhaps none with ``config.merge``.
        write: is given the answer piece by piece.

    Raises:
        UserError: a picture that cannot be read, no question, or a run that is not finished.
    """
    if not arguments and config.merge is None:
        raise UserError('nothing to answer: name pictures, if there are any, and then the question ("What is this?")')
    pictures = [open_picture(path) for path in arguments[:-1]]
    if config.merge is not None and config.merge.exists() and any(config.merge.iterdir()):
        raise UserError(f"--merge={config.merge} is a folder with files in it; name a new one")
    with session(config) as placement:
        predictor = Predictor.of_run(run_dir, placement, config.checkpoint)
        if arguments:
            choose = nucleus(config.temperature, config.top_p, config.seed) if config.temperature else greedy
            for (piece,) in predictor.answers([(pictures, arguments[-1])], config.max_tokens, choose):
                write(piece)
            write("\n")
        if config.merge is not None:
            merge_lora(predictor.model)
            save_checkpoint(config.merge, predictor.model)
