"""Remakes clustered.json with scikit-learn (made with 1.9.1): divergences of its t-SNE on the tables of clustered.py.

    python -m tests.golden.make_clustered

Ten minutes on one core. Each line has the mean distance of the table, by which the test sees that it is the same one,
and the divergence over all pairs, as ``kl_divergence`` computes it.
"""

import json
from pathlib import Path

from tests.golden.clustered import PERPLEXITY, TABLES, start, table
from vision_bridge.layouts.embedding import embed_features

HERE = Path(__file__).parent


def main() -> None:
    """Writes the file."""
    lines = []
    for number in range(TABLES):
        distances = table(number)
        divergence = embed_features(distances, "sklearn", PERPLEXITY, start(number), number).divergence
        lines.append(json.dumps({"mean": round(float(distances.mean()), 6), "divergence": round(divergence, 4)}))
    (HERE / "clustered.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
