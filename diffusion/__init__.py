"""Denoising diffusion (Ho et al. 2020): U-Net, training objective, samplers, and the Fréchet Inception Distance."""

import training  # noqa: F401  before Keras: it sets what TensorFlow reads when it starts
