"""Text classification with Transformers built from our own layers."""
