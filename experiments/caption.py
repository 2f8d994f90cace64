"""Ask a trained Llama 3.2 Vision about pictures.

python -m experiments.caption --run_dir=runs/… photo.jpg "What is this?"
python -m experiments.caption --run_dir=runs/… first.png second.png "Which is larger?" --temperature=0.7
python -m experiments.caption --run_dir=runs/… --data_path=questions.jsonl --out=answers.jsonl
python -m experiments.caption --run_dir=runs/… --merge=folder

Arguments are the pictures, if there are any, and then the question. The answer appears word by word. A file of
questions is answered line by line, and after an interruption the same command goes on with the first line that has no
answer in --out.
"""

import sys

from experiments import launch, signals
from vision_bridge.llama.caption_config import CaptionConfig

FLAGS = launch.define(CaptionConfig(), run_dir="Folder of a finished run of finetune_llama.", arguments=True)


def main(arguments: list[str]) -> None:
    """The answer on standard output."""
    from vision_bridge.llama.captioning import caption, dry_run

    config = launch.read(CaptionConfig(), FLAGS)
    run_dir = launch.trained_run(FLAGS.run_dir, "a finished run of finetune_llama")
    if FLAGS.dry_run:
        dry_run(config, run_dir, arguments, _write)
        return
    if config.out is None:
        signals.begins_anew(lambda: "answers to the first questions are on standard output, if any")
    caption(config, run_dir, arguments, _write, lambda text: print(text, file=sys.stderr, flush=True))


def _write(text: str) -> None:
    print(text, end="", flush=True)


if __name__ == "__main__":
    launch.launch(main, FLAGS)
