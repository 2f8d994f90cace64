"""Text features as images for frozen ImageNet networks."""

import training  # noqa: F401  before Keras: it sets what TensorFlow reads when it starts
