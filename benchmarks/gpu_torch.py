"""The peer's side of ``benchmarks.gpu``: PyTorch, compiled, with autocast, fused optimizers and channels last.

Every function returns one turn's work, and a check: numbers that ours must also give.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.gpu_sizes import AVERAGES, CHECKED_STEPS, CLIP, DECAYS, EPSILON, RATES, Arrays, Sizes
from benchmarks.gpu_torch_models import BertClassifier, Network, load
from benchmarks.turns import Turn


class Machine:
    """Device, precision and compiler."""

    def __init__(self, device: str, precision: str, mode: str) -> None:
        self.device, self.precision, self.mode = torch.device(device), precision, mode
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = True  # tries the convolutions' algorithms, as XLA does
        torch.manual_seed(0)

    def compiled(self, function: Callable) -> Callable:
        return torch.compile(function, mode=self.mode)

    def autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "mixed_bfloat16")

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def images(self, array: np.ndarray) -> torch.Tensor:
        """[B, H, W, C] → [B, C, H, W] with channels last in memory."""
        return self.tensor(array).permute(0, 3, 1, 2)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def turn_of(workload: str, sizes: Sizes, arrays: Arrays, machine: Machine, dropout: float) -> tuple[Turn, Arrays]:
    """The turn of a workload, and its check."""
    if workload == "matmul":
        return _matmul(sizes, machine), {}
    if workload == "tsne":
        return _tsne(sizes, arrays, machine)
    make = {"features": _features, "finetune": _finetune, "sampling": _sampling, "unet": _train_unet}[workload]
    return make(sizes, arrays, machine, dropout)


def _matmul(sizes: Sizes, machine: Machine) -> Turn:
    steps, dtype = sizes.steps["matmul"], torch.float32
    if machine.precision == "mixed_bfloat16":
        dtype = torch.bfloat16
    a, b = (torch.randn(sizes.matrix, sizes.matrix, device=machine.device).to(dtype) for _ in range(2))

    def turn() -> int:
        for _ in range(steps):
            torch.mm(a, b)
        machine.wait()
        return steps

    return turn


def _tsne(sizes: Sizes, arrays: Arrays, machine: Machine) -> tuple[Turn, Arrays]:
    """Always in float32: on a GPU from and to the host at every evaluation, where L-BFGS is, as ours."""
    p, points, steps = machine.tensor(arrays["p"]), arrays["points"], sizes.steps["tsne"]
    count = len(p)
    torch.set_float32_matmul_precision("highest")

    @machine.compiled
    def both(p: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = y - y.mean(0)
        ones = torch.ones_like(y[:, :1])
        square = y.square().sum(1, keepdim=True)
        left, right = torch.cat([-2 * y, ones, square + 1], 1), torch.cat([y, square, ones], 1)
        inverse = (left @ right.T).clamp(min=1)  # [D, D]
        w = 1 / inverse
        table = torch.cat([ones, y], 1)
        near, far = (p * w) @ table, (w * w) @ table
        total = w.sum() - count
        pull, push = near[:, :1] * y - near[:, 1:], far[:, :1] * y - far[:, 1:]
        return (p * inverse.log()).sum() + total.log(), 4 * (pull - push / total)

    def objective() -> tuple[float, np.ndarray]:
        value, gradient = both(p, torch.from_numpy(points.astype(np.float32)).to(machine.device))
        return float(value), gradient.cpu().numpy().astype(np.float64)

    value, gradient = objective()

    def turn() -> int:
        for _ in range(steps):
            objective()
        return steps

    return turn, {"divergence": np.array(value), "gradient": gradient}


def _bert(sizes: Sizes, arrays: Arrays, machine: Machine, dropout: float) -> BertClassifier:
    model = BertClassifier(sizes.bert, dropout)
    load(model, arrays)
    return model.to(machine.device)


def _network(sizes: Sizes, arrays: Arrays, machine: Machine, dropout: float) -> Network:
    model = Network(sizes.unet, dropout)
    load(model, arrays)
    return model.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _features(sizes: Sizes, arrays: Arrays, machine: Machine, dropout: float) -> tuple[Turn, Arrays]:
    model = _bert(sizes, arrays, machine, dropout).eval()
    tokens, steps = machine.tensor(arrays["tokens"]), sizes.steps["features"]

    @machine.compiled
    def encode(tokens: torch.Tensor) -> torch.Tensor:
        with machine.autocast():
            return model(tokens).float()

    def features(count: int) -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([encode(tokens) for _ in range(count)]).cpu().numpy()

    return lambda: len(features(steps)) * sizes.bert.tokens, {"features": features(1)}


def _finetune(sizes: Sizes, arrays: Arrays, machine: Machine, dropout: float) -> tuple[Turn, Arrays]:
    model = _bert(sizes, arrays, machine, dropout)
    tokens, label = machine.tensor(arrays["tokens"]), machine.tensor(arrays["label"]).long()

    @machine.compiled
    def loss_of(tokens: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        with machine.autocast():
            return F.cross_entropy(model.logits(tokens), label)

    with torch.inference_mode(), machine.autocast():
        check = {"probabilities": model.eval().logits(tokens).softmax(-1).cpu().numpy()}
    turn, losses = _training("finetune", sizes, model, lambda number: loss_of(tokens, label), len(tokens), machine)
    return lambda: turn() * sizes.bert.tokens, check | (losses if not dropout else {})


def _train_unet(sizes: Sizes, arrays: Arrays, machine: Machine, dropout: float) -> tuple[Turn, Arrays]:
    """Algorithm 1; the checked steps take time and noise from ours."""
    model = _network(sizes, arrays, machine, dropout)
    pixels, (alpha, sigma) = machine.images(arrays["image"]), (machine.tensor(arrays[n]) for n in ("alpha", "sigma"))
    first, last = (machine.tensor(arrays["t"]), machine.images(arrays["eps"])), len(alpha)

    @machine.compiled
    def loss_of(pixels: torch.Tensor, t: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        x0 = pixels.float() / 127.5 - 1.0
        x_t = alpha[t].view(-1, 1, 1, 1) * x0 + sigma[t].view(-1, 1, 1, 1) * eps
        with machine.autocast():
            output = model(x_t, t)
        return F.mse_loss(output.float(), eps)

    def loss(number: int) -> torch.Tensor:
        if number < CHECKED_STEPS:
            return loss_of(pixels, *first)
        t = torch.randint(1, last, (len(pixels),), device=machine.device, dtype=torch.int32)
        return loss_of(pixels, t, torch.randn_like(first[1]))

    with torch.inference_mode(), machine.autocast():
        output = model.eval()(first[1], first[0]).permute(0, 2, 3, 1).cpu().numpy()
    turn, losses = _training("unet", sizes, model, loss, len(pixels), machine)
    return turn, {"output": output} | (losses if not dropout else {})


def _training(
    workload: str, sizes: Sizes, model: torch.nn.Module, loss_of: Callable, count: int, machine: Machine
) -> tuple[Turn, Arrays]:
    """Updates by fused AdamW, with clipping and, where ours keeps them, averages of the weights."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": DECAYS[workload]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, RATES[workload], eps=EPSILON, fused=True)
    decay, steps = AVERAGES[workload], sizes.steps[workload]
    averages = [p.detach().clone() for p in parameters] if decay else []
    model.train()

    def step(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(number)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        if averages:
            with torch.no_grad():
                torch._foreach_lerp_(averages, [p.detach() for p in parameters], 1.0 - decay)
        return loss.detach(), norm

    first = [tuple(map(float, step(number))) for number in range(CHECKED_STEPS)]
    losses = {"loss": np.array([loss for loss, _ in first]), "gradient_norm": np.array([norm for _, norm in first])}

    def turn() -> int:
        for _ in range(steps):
            loss, _ = step(CHECKED_STEPS)
        float(loss)  # waits for the device
        return steps * count

    return turn, losses


def _sampling(sizes: Sizes, arrays: Arrays, machine: Machine, dropout: float) -> tuple[Turn, Arrays]:
    """DDIM by our table: x ← a·x + b·x̂_0."""
    model = _network(sizes, arrays, machine, dropout).eval()
    times, rows = machine.tensor(arrays["times"]).int(), len(arrays["times"])
    alpha, sigma = (machine.tensor(arrays[name][arrays["times"]]) for name in ("alpha", "sigma"))
    of_x, of_x0 = machine.tensor(arrays["of_x"]), machine.tensor(arrays["of_x0"])
    start, steps = machine.images(arrays["start"]), sizes.steps["sampling"]

    @machine.compiled
    def row(x: torch.Tensor, t: torch.Tensor, at: tuple) -> torch.Tensor:
        alpha, sigma, of_x, of_x0 = at
        with machine.autocast():
            output = model(x, t.expand(len(x)))
        x0 = ((x - sigma * output.float()) / alpha).clamp(-1, 1)
        return of_x * x + of_x0 * x0

    def images() -> np.ndarray:
        with torch.inference_mode():
            x = start
            for i in range(rows):
                x = row(x, times[i], (alpha[i], sigma[i], of_x[i], of_x0[i]))
            return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()

    return lambda: sum(len(images()) for _ in range(steps)), {"image": images().astype(np.float32)}
