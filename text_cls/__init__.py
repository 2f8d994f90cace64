"""Text classification with Transformers built from our own layers."""

import training  # noqa: F401  before Keras: it sets what TensorFlow reads when it starts
