"""Published encoders of the BERT family, read from their checkpoints into our own layers."""
