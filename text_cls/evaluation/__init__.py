"""Figures of a classifier: metrics, calibration, test rows as a run answered them; weights of classes in the loss."""
