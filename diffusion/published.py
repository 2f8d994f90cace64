"""Published U-Nets in diffusers' layout (``google/ddpm-cifar10-32`` and its like) → our weights."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from diffusion.config import ProcessConfig, UNetConfig
from diffusion.generator import Generator
from diffusion.process import DiffusionProcess
from files.errors import UserError
from files.tensors import read_weights
from training.strategy import Placement

_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_PARTS = {
    "norm_1": "norm1",
    "conv_1": "conv1",
    "time": "time_emb_proj",
    "norm_2": "norm2",
    "conv_2": "conv2",
    "shortcut": "conv_shortcut",
}
_NAMES = {
    "conv_in": "conv_in",
    "time_1": "time_embedding.linear_1",
    "time_2": "time_embedding.linear_2",
    "norm_out": "conv_norm_out",
    "conv_out": "conv_out",
    "middle_attention": "mid_block.attentions.0",
    "middle_attention_norm": "mid_block.attentions.0.group_norm",
}
_ONLY = (  # unsupported variants: name, the only supported value, diffusers' default
    ("act_fn", "silu", "silu"),
    ("time_embedding_type", "positional", "positional"),
    ("flip_sin_to_cos", False, True),
    ("freq_shift", 1, 0),
    ("downsample_padding", 0, 1),
    ("downsample_type", "conv", "conv"),
    ("upsample_type", "conv", "conv"),
    ("norm_eps", 1e-6, 1e-5),
    ("mid_block_scale_factor", 1, 1),
    ("center_input_sample", False, False),
    ("resnet_time_scale_shift", "default", "default"),
    ("add_attention", True, True),
    ("class_embed_type", None, None),
    ("num_class_embeds", None, None),
    ("attn_norm_num_groups", None, None),
)
_SCHEDULES = {"linear": "linear", "squaredcos_cap_v2": "cosine"}
_TARGETS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def is_published(folder: Path) -> bool:
    """Whether the folder holds a U-Net in diffusers' layout."""
    return any((folder / below / name).is_file() for below in ("", "unet") for name in _FILES)


def open_generator(folder: Path, placement: Placement) -> Generator:
    """The model of a folder in diffusers' layout, or of a run's folder."""
    return load_generator(folder, placement) if is_published(folder) else Generator.of_run(folder, placement)


def load_generator(folder: Path, placement: Placement) -> Generator:
    """A pipeline's folder (``unet/`` and ``scheduler/`` below it, or a U-Net's files alone) → a generator.

    Raises:
        UserError: files are missing or damaged, or the network differs from the reference's structure.
    """
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    raw = _read_json(unet / "config.json")
    places = (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json")
    scheduler = next((_read_json(path) for path in places if path.is_file()), {})
    try:
        process, config = read_process(scheduler), read_config(raw)
    except (KeyError, TypeError, IndexError, UserError) as error:
        raise UserError(f"{unet / 'config.json'}: not a UNet2DModel of the reference's structure ({error})") from error
    path = next((unet / name for name in _FILES if (unet / name).is_file()), None)
    if path is None:
        raise UserError(f"{unet}: no weights there ({' or '.join(_FILES)})")
    state = read_weights(path)
    generator = Generator(config, DiffusionProcess(process), (), placement)
    load_unet(state, generator.model, path)
    return generator


def read_process(scheduler: dict[str, Any]) -> ProcessConfig:
    """diffusers' ``scheduler_config.json`` → ours; KeyError for unsupported variants."""
    for name, only in (("beta_start", 1e-4), ("beta_end", 0.02), ("trained_betas", None)):
        if scheduler.get(name, only) != only:
            raise KeyError(f"{name} is {scheduler[name]!r}, not {only!r}")
    return ProcessConfig(
        diffusion_steps=scheduler.get("num_train_timesteps", 1000),
        noise_schedule=_SCHEDULES[scheduler.get("beta_schedule", "linear")],
        target=_TARGETS[scheduler.get("prediction_type", "epsilon")],
    )


def read_config(raw: dict[str, Any]) -> UNetConfig:
    """diffusers' ``config.json`` → ours; KeyError for unsupported variants."""
    widths, size = raw["block_out_channels"], raw["sample_size"]
    for name, only, usual in _ONLY:
        if raw.get(name, usual) != only:
            raise KeyError(f"{name} is {raw.get(name, usual)!r}, not {only!r}")
    head_width = raw.get("attention_head_dim", 8)
    with_attention = [w for w, kind in zip(widths, raw["down_block_types"], strict=True) if kind == "AttnDownBlock2D"]
    if head_width and len({*with_attention, widths[-1]}) > 1:
        raise KeyError(f"attention_head_dim is {head_width} at widths that differ, which makes other numbers of heads")
    return UNetConfig(
        height=size,
        width=size,
        channels=raw["in_channels"],
        base_width=widths[0],
        channel_multipliers=tuple(width // widths[0] for width in widths),
        num_blocks=raw["layers_per_block"],
        attention_resolutions=tuple(
            size >> level for level, kind in enumerate(raw["down_block_types"]) if kind == "AttnDownBlock2D"
        ),
        num_heads=max(1, widths[-1] // head_width) if head_width else 1,
        dropout=raw.get("dropout", 0.0),
        num_groups=raw.get("norm_num_groups", 32),
    )


def load_unet(state: dict[str, np.ndarray], model: keras.Model, where: Path | str = "state") -> None:
    """Assigns every weight of ``model`` from a state dict; none at all where one is missing or of another shape.

    Raises:
        UserError: names the first such weight.
    """
    levels = sum(layer.name.endswith("_double") for layer in model.layers) + 1
    values = []
    for layer in model.layers:
        for variable in layer.weights:
            if "seed_generator" in variable.path:
                continue
            value = _find(state, layer.name, variable.path.split("/")[1:], levels)
            if value is None or value.shape != tuple(variable.shape):
                wrong = "is missing" if value is None else f"has shape {value.shape}, not {tuple(variable.shape)}"
                raise UserError(f"{where}: the weight of {variable.path} {wrong}; is it a checkpoint of this network?")
            values.append((variable, value))
    for variable, value in values:
        variable.assign(value)


def _find(state: dict[str, np.ndarray], layer: str, path: list[str], levels: int) -> np.ndarray | None:
    """One variable's value, in our layout."""
    prefix = _prefix(layer, levels)
    kind = {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}[path[-1]]
    if path[0] == "qkv":
        parts = [_get(state, f"{prefix}.{name}", kind) for name in ("to_q", "to_k", "to_v")]
        return None if any(part is None for part in parts) else np.concatenate(parts, axis=-1)  # type: ignore[arg-type]
    return _get(state, f"{prefix}.to_out.0" if path[0] == "out" else prefix, kind)


def _get(state: dict[str, np.ndarray], name: str, kind: str) -> np.ndarray | None:
    """A tensor by its current or its earlier name, with inputs before outputs."""
    for now, old in {"": "", **_OLD}.items():
        value = state.get(f"{name.replace(now, old) if now else name}.{kind}")
        if value is not None:
            if value.ndim == 4:
                return value.transpose(2, 3, 1, 0)  # [out, in, h, w] → [h, w, in, out]
            return value.T if value.ndim == 2 else value
    return None


def _prefix(layer: str, levels: int) -> str:
    """Our layer's name → theirs."""
    if layer in _NAMES:
        return _NAMES[layer]
    where, *rest = layer.split("_")
    if where == "middle":
        return f"mid_block.resnets.{rest[0]}.{_PARTS['_'.join(rest[1:])]}"
    level = int(rest[0]) if where == "down" else levels - 1 - int(rest[0])
    block = f"{where}_blocks.{level}"
    if rest[1] in ("halve", "conv"):
        return f"{block}.{'downsamplers' if where == 'down' else 'upsamplers'}.0.conv"
    if rest[2] == "attention":
        return f"{block}.attentions.{rest[1]}{'.group_norm' if rest[3:] else ''}"
    return f"{block}.resnets.{rest[1]}.{_PARTS['_'.join(rest[2:])]}"


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from error
