"""Remakes confident.npz with ``cleanlab`` (made with 2.9.0): confident learning on probabilities that were drawn.

    pip install cleanlab==2.9.0
    python -m tests.golden.make_confident

Five classes of unlike sizes, a fifth of whose labels were drawn anew. ``cleanlab`` takes the likeliest of all classes
where several reach their threshold, the paper the likeliest of those that do: no row here is one where that differs.
It rounds the joint to whole rows.
"""

from pathlib import Path

import numpy as np
from cleanlab.count import compute_confident_joint, estimate_joint
from cleanlab.filter import find_label_issues

HERE = Path(__file__).parent


def main() -> None:
    """Writes the file."""
    rng = np.random.default_rng(0)
    true = rng.choice(5, 400, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    labels = np.where(rng.random(400) < 0.2, rng.integers(0, 5, 400), true)
    scores = rng.normal(0, 1, (400, 5)) + 2.5 * np.eye(5)[true]
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    sure = p >= np.array([p[labels == k, k].mean() for k in range(5)])
    assert (sure[np.arange(len(p)), p.argmax(axis=1)] | (sure.sum(axis=1) < 2)).all()
    counts = compute_confident_joint(labels, p, calibrate=False)
    ranked = find_label_issues(
        labels, p, filter_by="confident_learning", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    joint = estimate_joint(labels, p, confident_joint=counts)
    np.savez_compressed(
        HERE / "confident.npz", probabilities=p, labels=labels, counts=counts, joint=joint, ranked=ranked
    )


if __name__ == "__main__":
    main()
