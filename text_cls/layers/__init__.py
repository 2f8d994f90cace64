"""The Transformer's layers, and the classifiers from scratch that are built of them."""
