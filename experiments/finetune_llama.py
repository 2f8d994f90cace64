"""Fine-tune Llama 3.2 Vision on questions about pictures, or train a small one from scratch on digits.

python -m experiments.finetune_llama --flagfile=experiments/flags/llama_digits.flags
"""

from experiments import launch
from vision_bridge.llama.task_config import FinetuneLlamaConfig

FLAGS = launch.define(FinetuneLlamaConfig())


def main(arguments: list[str]) -> None:
    """Checkpoint, pictures, training, answers."""
    from vision_bridge.llama.task import dry_run, finetune

    config = launch.read(FinetuneLlamaConfig(), FLAGS)
    if FLAGS.dry_run:
        dry_run(config)
    else:
        finetune(config, launch.run_dir(FLAGS.run_dir, f"finetune_llama-{config.dataset}"))


if __name__ == "__main__":
    launch.launch(main, FLAGS)
