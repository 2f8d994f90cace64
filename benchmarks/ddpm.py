"""Training and sampling steps of the U-Net here, in diffusers and in denoising-diffusion-pytorch, like with like.

    pip install -r benchmarks/requirements.txt
    pip install --no-deps denoising-diffusion-pytorch==2.3.4 accelerate ema-pytorch pytorch-fid einops
    python -m benchmarks.ddpm --task=train --model=cifar10
    python -m benchmarks.ddpm --task=sample --model=digits --precision=bfloat16
    python -m benchmarks.ddpm --sides=twin,lucidrains_bare,lucidrains,near

The sides take turns, each in a process of its own that idles while another runs:

* ours: the engine's own training step, or the compiled sampling loop, as the scripts run them;
* diffusers: ``UNet2DModel`` of the same structure and number of parameters, channels last, its own ``DDIMScheduler``;
* lucidrains: ``denoising_diffusion_pytorch.Unet`` of the same width and multipliers, with the same updates around it: a
  network of its own with fewer operations, full attention at the last level and linear attention at all others;
* lucidrains_bare: the same without linear attention, which we do not have;
* twin: that network of our layers, for the same work on both sides;
* near: ``UNetConfig`` with the options that come nearest to it.

A training step is Algorithm 1 with Adam, clipping at 1.0 and an average of the weights; the peers' optimizer and
average are PyTorch's fused and ``_foreach`` ones. A sampling step is one of DDIM's. bfloat16 is ``mixed_bfloat16`` here
and ``torch.autocast`` there. Beside the time of an image stand its operations (``benchmarks.ddpm_networks``; a training
step is three forward passes) and their rate.
"""

import json
import sys
import tempfile
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks import ddpm_networks
from benchmarks.ddpm_networks import SHAPES
from benchmarks.engine import training_turn
from benchmarks.turns import Turn, answer, keep_to_cores, take_turns

FLAGS = flags.FLAGS
flags.DEFINE_enum("task", "train", ["train", "sample"], "What is measured.")
flags.DEFINE_enum("model", "cifar10", ["cifar10", "digits"], "The reference U-Net, or that of the digits.")
flags.DEFINE_integer("batch_size", 0, "Images in a batch; 0: 16 for cifar10, 64 for digits.")
flags.DEFINE_integer("steps", 0, "Steps per measurement; 0: 2 for cifar10, 20 for digits.")
flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "Number format of the networks.")
flags.DEFINE_integer("rounds", 5, "Measurements of each implementation.")
flags.DEFINE_integer("threads", 2, "CPU threads of each implementation.")
flags.DEFINE_bool("xla", False, "ours: compile with XLA.")
flags.DEFINE_integer("shards", 0, "ours: parts of a batch computed in parallel; 0: as in the scripts.")
flags.DEFINE_list(
    "sides", ["ours", "diffusers", "twin", "lucidrains_bare", "lucidrains"], "Implementations to measure."
)
flags.DEFINE_string("side", "", "Internal: the implementation that this process runs.")
flags.DEFINE_string("counts", "", "Internal: file for the counted operations.")

OURS = ("ours", "twin", "near")
_OPEN = ExitStack()  # until the process ends


def sizes() -> tuple[int, int]:
    """Images of a batch, and steps of a turn."""
    batch, steps = {"cifar10": (16, 2), "digits": (64, 20)}[FLAGS.model]
    return FLAGS.batch_size or batch, FLAGS.steps or steps


def images() -> np.ndarray:
    """[N, H, W, C] uint8 noise: speed does not depend on the content of the images."""
    size, channels, *_ = SHAPES[FLAGS.model]
    return np.random.default_rng(0).integers(0, 256, (256, size, size, channels), np.uint8)


def ours(side: str) -> Turn:
    """What ``experiments.ddpm`` and ``experiments.sample_ddpm`` do."""

    from diffusion.batches import training_batches
    from diffusion.data.readers import Images
    from diffusion.generator import Generator
    from diffusion.process.config import ProcessConfig, SamplerConfig
    from diffusion.process.objective import make_loss_fn
    from diffusion.process.process import make_process
    from training.adamw import AdamW
    from training.config import TrainingConfig
    from training.job import Job
    from training.placement import make_placement
    from training.session import precision

    placement = make_placement("cpu", FLAGS.shards)
    _OPEN.enter_context(precision("mixed_bfloat16" if FLAGS.precision == "bfloat16" else "float32"))
    config = (ddpm_networks.near_lucidrains if side == "near" else ddpm_networks.config_of)(FLAGS.model)
    generator = Generator(config, make_process(ProcessConfig()), (), placement)
    if side == "twin":
        with placement.scope():
            generator.model = ddpm_networks.twin(FLAGS.model)
    model = generator.model
    _count(ddpm_networks.operations(model), ddpm_networks.operations(model, done=True), model.count_params())
    batch, steps = sizes()
    if FLAGS.task == "sample":
        sampler = SamplerConfig("ddim", steps)
        return lambda: steps * len(generator.images(sampler, generator.request(np.arange(batch)), batch))
    optimizer = AdamW(2e-4, 0.0, epsilon=1e-8, ema_decay=0.9999)
    optimizer.build(model.trainable_variables)
    data = Images(images(), None)
    loss_fn = make_loss_fn(model, generator.process)
    job = Job(model, optimizer, loss_fn, lambda step: training_batches(data, batch, 0, True, step), dict)
    return training_turn(job, placement, TrainingConfig(xla=FLAGS.xla), steps)


def _count(operations: float, done: float, parameters: int) -> None:
    """Notes them for the process that prints the table."""
    if FLAGS.counts:
        Path(FLAGS.counts).write_text(json.dumps([operations, done, parameters]))


def peer(side: str) -> Turn:
    """The same work around a peer's network."""
    import torch
    from diffusers import DDIMScheduler  # before lucidrains' stand-ins for torchvision

    torch.set_num_threads(FLAGS.threads)
    torch.manual_seed(0)
    if side == "diffusers":
        model = ddpm_networks.diffusers_unet(FLAGS.model).to(memory_format=torch.channels_last)
        network = lambda x, t: model(x, t).sample  # noqa: E731
    else:
        model = network = ddpm_networks.lucidrains_unet(FLAGS.model, linear_attention=side == "lucidrains")
    operations = ddpm_networks.torch_operations(model, FLAGS.model)
    _count(operations, operations, sum(p.numel() for p in model.parameters()))
    narrow = FLAGS.precision == "bfloat16"

    def predict(x: Any, t: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16) if narrow else nullcontext():
            return network(x, t).float()

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


def _row(side: str, rate: float, first: float, counts: tuple[float, float, int]) -> str:
    """A line of the table; a training step is a forward pass and two products for each of its own."""
    operations, done = (count * (3 if FLAGS.task == "train" else 1) / 1e9 for count in counts[:2])
    return (
        f"{side:15s} {counts[2] / 1e6:7.2f} {1e3 / rate:9.2f} {operations:9.3f} {done:9.3f} {rate * operations:9.1f} "
        f"{first / rate:7.2f}"
    )


def main(argv: list[str]) -> None:
    """Lets the sides take turns and prints medians, operations and ratios."""
    if FLAGS.side:
        keep_to_cores(FLAGS.threads)
        answer((ours if FLAGS.side in OURS else peer)(FLAGS.side))
        return
    kept = ("task", "model", "batch_size", "steps", "threads", "shards", "precision")
    base = [sys.executable, "-m", "benchmarks.ddpm", *(f"--{name}={FLAGS[name].value}" for name in kept)]
    base += ["--xla"] if FLAGS.xla else []
    with tempfile.TemporaryDirectory() as folder:
        counts = {side: Path(folder) / f"{side}.json" for side in FLAGS.sides}
        commands = {side: [*base, f"--side={side}", f"--counts={file}"] for side, file in counts.items()}
        rates = take_turns(commands, FLAGS.rounds, "image steps")
        found = {side: json.loads(file.read_text()) for side, file in counts.items()}
    print(f"\n{'side':15s} {'Mparams':>7s} {'ms/image':>9s} {'GFLOP':>9s} {'done':>9s} {'GFLOP/s':>9s} {'slower':>7s}")
    for side, rate in rates.items():
        # ``slower``: how many times as long as the first side an image step takes
        print(_row(side, rate, rates[FLAGS.sides[0]], found[side]))


if __name__ == "__main__":
    app.run(main)
