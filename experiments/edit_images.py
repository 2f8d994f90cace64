"""Edits of your own images by a trained diffusion model: parts made anew, variations, images between two, larger ones.

python -m experiments.edit_images --run_dir=runs/ddpm-digits-… --images=photos --edit=inpaint --mask=mask.png
"""

from diffusion.editing.config import EditConfig
from experiments import launch

FLAGS = launch.define(EditConfig(), run_dir="Folder of the trained model.")


def main(arguments: list[str]) -> None:
    """Loads model and images and writes what was asked for."""
    from diffusion.editing_task import dry_run, edit_images

    config = launch.read(EditConfig(), FLAGS)
    model_dir = launch.trained_run(FLAGS.run_dir)
    if FLAGS.dry_run:
        dry_run(config, model_dir)
    else:
        edit_images(config, model_dir)


if __name__ == "__main__":
    launch.launch(main, FLAGS)
