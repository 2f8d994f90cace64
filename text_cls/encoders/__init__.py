"""Published encoders of the BERT family, and classifiers on them, in our own layers; masked language modelling."""
