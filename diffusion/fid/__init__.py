"""Distances between sets of images: FID and the figures beside it, on features of InceptionV3 or of the user's own."""
