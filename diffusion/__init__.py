"""Denoising diffusion (Ho et al. 2020): U-Net, training objective, samplers, and the Fréchet Inception Distance."""
