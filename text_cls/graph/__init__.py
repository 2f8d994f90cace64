"""Tokenisers and classifiers as TensorFlow graphs, for export."""
