"""Makes torchvision.npz with torchvision's own network and transforms (made with 0.28.0).

    pip install torchvision==0.28.0
    python -m tests.golden.make_torchvision

Features (every 16th) and logits (every 8th) of four images, under random weights of the public layout.
"""

from pathlib import Path

import numpy as np
import torch
from torchvision.models import inception_v3
from torchvision.transforms.v2 import functional

from tests.golden.inception_state import images, random_state


def main() -> None:
    network = inception_v3(weights=None, transform_input=True, init_weights=False).eval()
    state = random_state()
    state |= {name: state[name][:1000] for name in ("fc.weight", "fc.bias")}
    rest = network.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()}, strict=False)
    assert not [name for name in rest.missing_keys if "Aux" not in name and "num_batches" not in name], rest
    pixels = torch.from_numpy(images(4)).permute(0, 3, 1, 2).float() / 255
    resized = functional.resize(pixels, [299, 299], antialias=True)
    features: list[torch.Tensor] = []
    network.avgpool.register_forward_hook(lambda layer, inputs, output: features.append(output.flatten(1)))
    with torch.no_grad():
        logits = network(functional.normalize(resized, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    target = Path(__file__).parent / "torchvision.npz"
    np.savez_compressed(target, features=features[0].numpy()[:, ::16], logits=logits.numpy()[:, ::8])


if __name__ == "__main__":
    main()
