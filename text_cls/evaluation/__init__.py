"""Figures of a classifier: metrics, calibration, and test rows as a run answered them."""
