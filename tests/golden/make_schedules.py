"""Remakes schedules.json with Hugging Face ``diffusers`` (made with 0.42.1): ᾱ_t of its schedulers, and their files.

pip install diffusers==0.42.1 torch==2.13.0
python -m tests.golden.make_schedules
"""

import json
from pathlib import Path

import diffusers
import torch

CASES: list[tuple[str, dict]] = [
    ("DDPMScheduler", {}),
    ("DDPMScheduler", {"num_train_timesteps": 100}),
    ("DDIMScheduler", {"num_train_timesteps": 4000, "beta_start": 1e-5, "beta_end": 0.005}),
    ("PNDMScheduler", {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
    ("DDPMScheduler", {"beta_schedule": "sigmoid", "num_train_timesteps": 300}),
    ("UniPCMultistepScheduler", {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 50}),
    ("DDPMScheduler", {"num_train_timesteps": 4, "trained_betas": [0.1, 0.2, 0.4, 0.5]}),
    ("DDIMScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "clip_sample": False}),
    ("HeunDiscreteScheduler", {}),
]


def main() -> None:
    made = []
    for name, options in CASES:
        scheduler = getattr(diffusers, name)(**options)
        steps = scheduler.config.num_train_timesteps
        times = sorted({1, 2, steps // 3, steps // 2, steps - 1, steps})
        alpha_bar = scheduler.alphas_cumprod.to(torch.float64)
        saved = {key: value for key, value in scheduler.config.items() if key != "_use_default_values"}
        saved |= {"_class_name": name, "_diffusers_version": diffusers.__version__}
        made.append({"config": saved, "times": times, "alpha_bar": [float(alpha_bar[t - 1]) for t in times]})
    path = Path(__file__).parent / "schedules.json"
    path.write_text("[\n" + ",\n".join(json.dumps(case) for case in made) + "\n]\n")


if __name__ == "__main__":
    main()
