"""Pairs of texts for golden files and their tests; among them ones that are cut, and empty ones."""

LENGTH = 12
PAIRS = (
    ("the run", "of the"),
    ("the running of the transformer and the run", "unaffable"),
    ("run", "the running of the transformer and the runs of the run"),
    ("the running of the transformer and the run", "the runs of the transformed and the run"),
    ("a b c d e", "f g h i"),
    ("a b c d e f g h i", "j k l m n o p q r"),
    ("a b c d e f g h i j", "k l m n o p q r s"),
    ("", "the run"),
    ("the run", ""),
    ("see [SEP] here", "and [MASK] there"),
)
