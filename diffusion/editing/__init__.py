"""In-painting, variations and inversion of images, as walks over a sampler's table."""
