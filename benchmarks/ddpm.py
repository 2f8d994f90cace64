"""Training and sampling steps of the same-size U-Net here, in diffusers and in denoising-diffusion-pytorch.

    pip install -r benchmarks/requirements.txt
    pip install --no-deps denoising-diffusion-pytorch==2.3.4 accelerate ema-pytorch pytorch-fid
    python -m benchmarks.ddpm --task=train --model=cifar10
    python -m benchmarks.ddpm --task=sample --model=digits

The sides take turns, each in a process of its own that idles while another runs:

* ours: the engine's own training step, or the compiled sampling loop, as the scripts run them;
* diffusers: ``UNet2DModel`` of the same structure and number of parameters, channels last, its own ``DDIMScheduler``;
* lucidrains: ``denoising_diffusion_pytorch.Unet`` of the same width and multipliers (its own structure: attention on
  every level, its own number of parameters), with the same updates around it.

A training step is Algorithm 1 with Adam, clipping at 1.0 and an average of the weights; the peers' optimizer and
average are PyTorch's fused and ``_foreach`` ones. A sampling step is one of DDIM's.
"""

import sys
import types
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks.engine import training_turn
from benchmarks.turns import Turn, answer, keep_to_cores, take_turns

FLAGS = flags.FLAGS
flags.DEFINE_enum("task", "train", ["train", "sample"], "What is measured.")
flags.DEFINE_enum("model", "cifar10", ["cifar10", "digits"], "The reference U-Net, or that of the digits.")
flags.DEFINE_integer("batch_size", 0, "Images; 0: 16 for cifar10, 64 for digits.")
flags.DEFINE_integer("steps", 0, "Steps of a turn; 0: 2 for cifar10, 20 for digits.")
flags.DEFINE_integer("rounds", 5, "Turns of each side.")
flags.DEFINE_integer("threads", 2, "CPU threads of each side.")
flags.DEFINE_bool("xla", False, "ours: compile with XLA.")
flags.DEFINE_integer("shards", 0, "ours: parts of a batch side by side; 0: as the scripts choose.")
flags.DEFINE_list("sides", ["ours", "diffusers", "lucidrains"], "Implementations to measure.")
flags.DEFINE_string("side", "", "Internal: the side that this process plays.")

SHAPES = {  # height, channels, base width, multipliers, attention sizes, groups, dropout
    "cifar10": (32, 3, 128, (1, 2, 2, 2), (16,), 32, 0.1),
    "digits": (8, 1, 32, (1, 2), (4,), 8, 0.1),
}


def sizes() -> tuple[int, int]:
    """Images of a batch, and steps of a turn."""
    batch, steps = {"cifar10": (16, 2), "digits": (64, 20)}[FLAGS.model]
    return FLAGS.batch_size or batch, FLAGS.steps or steps


def images() -> np.ndarray:
    """[N, H, W, C] uint8 noise: speed does not depend on the content of the images."""
    size, channels, *_ = SHAPES[FLAGS.model]
    return np.random.default_rng(0).integers(0, 256, (256, size, size, channels), np.uint8)


def ours() -> Turn:
    """What ``experiments.ddpm`` and ``experiments.sample_ddpm`` do."""

    from diffusion.batches import training_batches
    from diffusion.generator import Generator
    from diffusion.objective import make_loss_fn
    from diffusion.process import DiffusionProcess
    from diffusion.process_config import ProcessConfig, SamplerConfig
    from diffusion.readers import Images
    from diffusion.unet_config import UNetConfig
    from training.adamw import AdamW
    from training.config import TrainingConfig
    from training.job import Job
    from training.placement import make_placement

    size, channels, width, multipliers, attention, groups, dropout = SHAPES[FLAGS.model]
    placement = make_placement("cpu", FLAGS.shards)
    config = UNetConfig(size, size, channels, width, multipliers, 2, attention, 1, dropout, groups)
    generator = Generator(config, DiffusionProcess(ProcessConfig()), (), placement)
    batch, steps = sizes()
    if FLAGS.task == "sample":
        sampler = SamplerConfig("ddim", steps)
        return lambda: steps * len(generator.images(sampler, generator.request(np.arange(batch)), batch))
    model = generator.model
    optimizer = AdamW(2e-4, 0.0, epsilon=1e-8, ema_decay=0.9999)
    optimizer.build(model.trainable_variables)
    data = Images(images(), None)
    loss_fn = make_loss_fn(model, generator.process)
    job = Job(model, optimizer, loss_fn, lambda step: training_batches(data, batch, 0, True, step), dict)
    return training_turn(job, placement, TrainingConfig(xla=FLAGS.xla), steps)


def diffusers_unet() -> Any:
    """Same structure and number of parameters."""
    from diffusers import UNet2DModel

    size, channels, width, multipliers, attention, groups, dropout = SHAPES[FLAGS.model]
    with_attention = [size >> level in attention for level in range(len(multipliers))]
    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=2,
        block_out_channels=tuple(width * m for m in multipliers),
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in with_attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(with_attention)),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        attention_head_dim=None,
        norm_num_groups=groups,
        norm_eps=1e-6,
        dropout=dropout,
    )


def lucidrains_unet() -> Any:
    """Same width and multipliers."""
    import importlib.util

    if importlib.util.find_spec("torchvision") is None:  # needed only by its trainer, which is not used here
        for name in ("torchvision", "torchvision.transforms", "torchvision.utils"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]  # type: ignore[attr-defined]
        sys.modules["torchvision"].utils = sys.modules["torchvision.utils"]  # type: ignore[attr-defined]
    from denoising_diffusion_pytorch.denoising_diffusion_pytorch import Unet

    _, channels, width, multipliers, _, _, dropout = SHAPES[FLAGS.model]
    return Unet(dim=width, dim_mults=multipliers, channels=channels, dropout=dropout)


def peer(side: str) -> Turn:
    """The same work around a peer's network."""
    import torch
    from diffusers import DDIMScheduler  # before lucidrains' stand-ins for torchvision

    torch.set_num_threads(FLAGS.threads)
    torch.manual_seed(0)
    if side == "diffusers":
        model = diffusers_unet().to(memory_format=torch.channels_last)
        predict = lambda x, t: model(x, t).sample  # noqa: E731
    else:
        model = lucidrains_unet()
        predict = model
    print(side, sum(p.numel() for p in model.parameters()), "parameters", file=sys.stderr)
    scheduler = DDIMScheduler(1000, 1e-4, 0.02, "linear")
    return _peer_sampling(model, predict, scheduler) if FLAGS.task == "sample" else _peer_training(model, predict, side)


def _peer_sampling(model: Any, predict: Any, scheduler: Any) -> Turn:
    import torch

    size, channels, *_ = SHAPES[FLAGS.model]
    batch, steps = sizes()
    scheduler.set_timesteps(steps)
    model.eval()

    def turn() -> int:
        with torch.inference_mode():
            x = torch.randn(batch, channels, size, size)
            for t in scheduler.timesteps:
                x = scheduler.step(predict(x, t.expand(batch)), t, x).prev_sample
            ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
        return steps * batch

    return turn


def _peer_training(model: Any, predict: Any, side: str) -> Turn:
    import torch

    batch, steps = sizes()
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).float()
    parameters = list(model.parameters())
    averages = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.Adam(parameters, 2e-4, fused=True)
    data = torch.from_numpy(images()).permute(0, 3, 1, 2).contiguous()
    model.train()

    def turn() -> int:
        for _ in range(steps):
            chosen = torch.randint(0, len(data), (batch,))
            x0 = data[chosen].float() / 127.5 - 1.0
            flipped = torch.rand(batch) < 0.5
            x0[flipped] = x0[flipped].flip(-1)
            if side == "diffusers":
                x0 = x0.contiguous(memory_format=torch.channels_last)
            t, noise = torch.randint(0, 1000, (batch,)), torch.randn_like(x0)
            a = alpha_bar[t].view(-1, 1, 1, 1)
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.mse_loss(predict(a.sqrt() * x0 + (1 - a).sqrt() * noise, t), noise).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(averages, [p.detach() for p in parameters], 1e-4)
        return steps * batch

    return turn


def main(argv: list[str]) -> None:
    """Lets the sides take turns and prints medians and ratios."""
    if FLAGS.side:
        keep_to_cores(FLAGS.threads)
        answer(ours() if FLAGS.side == "ours" else peer(FLAGS.side))
        return
    base = [sys.executable, "-m", "benchmarks.ddpm"]
    base += [f"--{name}={FLAGS[name].value}" for name in ("task", "model", "batch_size", "steps", "threads", "shards")]
    base += ["--xla"] if FLAGS.xla else []
    take_turns({side: [*base, f"--side={side}"] for side in FLAGS.sides}, FLAGS.rounds, "image steps")


if __name__ == "__main__":
    app.run(main)
