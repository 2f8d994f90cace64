"""Remakes unet.npz with an independent implementation, Hugging Face ``diffusers`` (made with 0.42.1).

    pip install diffusers==0.42.1 torch==2.13.0
    python -m tests.golden.make_unet

A random U-Net of a few thousand weights: its state dict, an input, and its output.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DModel

from tests.golden.unet_config import CONFIG


def main() -> None:
    torch.manual_seed(0)
    model = UNet2DModel(**CONFIG).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.3 if parameter.ndim == 1 else 1.0 / parameter[0].numel() ** 0.5
            offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_((torch.randn_like(parameter) * spread + offset).half().float())
        x = torch.randn(3, 3, 16, 16).half().float()
        t = torch.tensor([0, 17, 999])
        y = model(x, t).sample
    state = {f"state/{name}": value.numpy().astype(np.float16) for name, value in model.state_dict().items()}
    np.savez_compressed(
        Path(__file__).parent / "unet.npz", x=x.permute(0, 2, 3, 1).numpy(), t=t.numpy(),
        y=y.permute(0, 2, 3, 1).numpy(), **state,
    )  # fmt: skip


if __name__ == "__main__":
    main()
