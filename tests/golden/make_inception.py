"""Remakes inception.npz with an independent implementation, torch-fidelity's (made with 0.4.0).

    pip install torch-fidelity==0.4.0 torch==2.13.0     # torchvision too, or import its module alone
    python -m tests.golden.make_inception

pool_3 features (every 16th) and logits (every 8th) of 64 images, under random weights of the public layout.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from tests.golden.inception_state import images, random_state


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.pth"
        state = {name: torch.from_numpy(value) for name, value in random_state().items()}
        torch.save(state, path)
        network = FeatureExtractorInceptionV3("x", ["2048", "logits_unbiased"], feature_extractor_weights_path=path)
    with torch.no_grad():
        features, logits = network(torch.from_numpy(images()).permute(0, 3, 1, 2))
    target = Path(__file__).parent / "inception.npz"
    np.savez_compressed(target, features=features.numpy()[:, ::16], logits=logits.numpy()[:, ::8])


if __name__ == "__main__":
    main()
