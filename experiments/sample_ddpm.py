"""Images from a trained diffusion model: a grid, an animation, an interpolation, or any number of image files.

python -m experiments.sample_ddpm --run_dir=runs/ddpm-digits-… --num_images=64 --animate
"""

from diffusion.config import SampleConfig
from experiments import launch

FLAGS = launch.define(SampleConfig(), run_dir="Folder of the trained model.")


def main(arguments: list[str]) -> None:
    """Loads the model and writes what was asked for."""
    from diffusion.sampling_task import dry_run, sample_images

    config = launch.read(SampleConfig(), FLAGS)
    model_dir = launch.trained_run(FLAGS.run_dir)
    if FLAGS.dry_run:
        dry_run(config, model_dir)
    else:
        sample_images(config, model_dir)


if __name__ == "__main__":
    launch.launch(main, FLAGS)
