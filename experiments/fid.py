"""Fréchet Inception Distance, and its relatives, between two sets of images.

    python -m experiments.fid A B

A and B are image folders or archives, npz or npy files of images or of features, saved statistics (ours, and those of
other tools, which --statistics_of names: npz, torch-fidelity's .pt, EDM2's .pkl), run folders of ddpm (images are
sampled), data sets (cifar10:train, cifar10:test@PATH), or what a run of ddpm learned from or held out (RUN_DIR:train,
RUN_DIR:test). A is the real side. Figures of different --protocol are not comparable.
"""

import dataclasses

from diffusion.fid.config import FidConfig
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
