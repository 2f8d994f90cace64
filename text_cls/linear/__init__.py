"""Linear models on n-grams: the baselines, and the sum that a classifier from scratch adds to its network."""
