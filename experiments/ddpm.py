"""Train a denoising diffusion model on images; by default, on scikit-learn's handwritten digits.

python -m experiments.ddpm
"""

from diffusion.config import DdpmConfig
from experiments import launch

FLAGS = launch.define(DdpmConfig())


def main(arguments: list[str]) -> None:
    """Trains, or takes one step."""
    from diffusion.task import dry_run, train_ddpm

    config = launch.read(DdpmConfig(), FLAGS)
    if FLAGS.dry_run:
        dry_run(config)
    else:
        train_ddpm(config, launch.run_dir(FLAGS.run_dir, f"ddpm-{config.data.dataset}"))


if __name__ == "__main__":
    launch.launch(main, FLAGS)
