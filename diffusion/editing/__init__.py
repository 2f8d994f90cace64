"""Edits of given images (in-painting, variations, images between two, enlarging), most of them walks over a table."""
