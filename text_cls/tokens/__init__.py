"""Texts → token ids: words, subwords, WordPiece and the tokenizers library behind one interface."""
