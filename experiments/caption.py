"""Ask a trained Llama 3.2 Vision about pictures.

python -m experiments.caption --run_dir=runs/… photo.jpg "What is this?"
python -m experiments.caption --run_dir=runs/… first.png second.png "Which is larger?" --temperature=0.7
python -m experiments.caption --run_dir=runs/… --merge=folder

Arguments are the pictures, if there are any, and then the question. The answer appears word by word.
"""

from experiments import launch
from vision_bridge.llama.caption_config import CaptionConfig

FLAGS = launch.define(CaptionConfig(), run_dir="Folder of a finished run of finetune_llama.", arguments=True)


def main(arguments: list[str]) -> None:
    """The answer on standard output."""
    from vision_bridge.llama.captioning import caption

    config = launch.read(CaptionConfig(), FLAGS)
    run_dir = launch.trained_run(FLAGS.run_dir, "a finished run of finetune_llama")
    caption(config, run_dir, arguments, lambda text: print(text, end="", flush=True))


if __name__ == "__main__":
    launch.launch(main, FLAGS)
