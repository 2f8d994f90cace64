"""Fréchet Inception Distance, and its relatives, between two sets of images.

    python -m experiments.fid A B

A and B are image folders or archives, npz files of images, saved statistics (ours, pytorch-fid's, clean-fid's), run
folders of ddpm (images are sampled), or data sets: cifar10:train, cifar10:test@PATH. A is the real side.
"""

import dataclasses

from diffusion.config import FidConfig
from experiments import launch
from files.errors import UserError

FLAGS = launch.define(FidConfig(), arguments=True)


def main(arguments: list[str]) -> None:
    """Computes features of both sides, their statistics and the figures."""
    from diffusion.fid_task import dry_run, measure_fid

    config = launch.read(FidConfig(), FLAGS)
    if arguments:
        if len(arguments) != 2:
            raise UserError("two sets of images are needed: python -m experiments.fid A B; see --help")
        config = dataclasses.replace(config, a=arguments[0], b=arguments[1])
    if FLAGS.dry_run:
        dry_run(config)
    else:
        measure_fid(config, launch.run_dir(FLAGS.run_dir, "fid"))


if __name__ == "__main__":
    launch.launch(main, FLAGS)
