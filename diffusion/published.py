"""Published U-Nets in diffusers' layout, such as ``google/ddpm-cifar10-32`` → our weights."""

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np

from diffusion.generator import Generator
from diffusion.network.config import MAX_LEVELS, MAX_SIZE, UNetConfig
from diffusion.process.process import make_process
from diffusion.published_process import notes_of, plain, read_process
from diffusion.wording import first_names
from files.documents import read_object, shown
from files.errors import UserError
from files.tensors import read_metadata, read_weights
from training.backends import Placement
from training.run_config import read_own

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
_MIRRORED = {"DownBlock2D": "UpBlock2D", "AttnDownBlock2D": "AttnUpBlock2D"}  # our levels have the same kind both ways
_BLOCK = re.compile(r"down_blocks\.(\d{1,4})\.resnets\.(\d{1,4})\.")
_UP = re.compile(r"up_\d+_conv")  # our layer between two levels
_OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def is_published(folder: Path) -> bool:
    """Whether the folder holds a U-Net in diffusers' layout."""
    return any((folder / below / name).is_file() for below in ("", "unet") for name in _FILES)


def open_generator(folder: Path, placement: Placement) -> Generator:
    """The model of a folder in diffusers' layout, or of a run's folder.

    Raises:
        UserError: a file is missing or damaged, or a run has no weights yet.
    """
    if is_published(folder):
        return load_generator(folder, placement)
    evaluated = ("result.json", "model/weights.safetensors", "checkpoints/best.safetensors")
    if (folder / "model" / "config.json").is_file() and not any((folder / name).exists() for name in evaluated):
        raise UserError(f"{folder}: no weights yet, because training has not reached an evaluation; let it go on")
    generator = Generator.of_run(folder, placement)
    if not (folder / "model" / "weights.safetensors").is_file():
        generator.notes = (_unfinished(folder), *generator.notes)
    return generator


def _unfinished(run: Path) -> str:
    """A note on the weights of a run that has not ended: those of which step, and why those."""
    step = read_metadata(run / "checkpoints" / "best.safetensors").get("step", "")
    after = f" after step {int(step):,}" if step.isdecimal() else ""
    training = ((read_own(run / "config.json") or {}).get("config") or {}).get("training") or {}
    select = training.get("select")
    why = f"the best so far by the validation figure {shown(select)} (--select)" if select else "of its last evaluation"
    return f"{run}: training has not ended; the weights are those{after}, {why}"


def load_generator(folder: Path, placement: Placement) -> Generator:
    """A pipeline's folder (``unet/`` and ``scheduler/`` below it, or a U-Net's files alone) → a generator.

    Raises:
        UserError: files are missing or damaged, or the network differs from the reference's structure.
    """
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    raw = read_object(unet / "config.json")
    places = (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json")
    about = next((path for path in places if path.exists()), None)
    scheduler = None if about is None else read_object(about)
    try:
        process = read_process(scheduler or {})
    except (KeyError, TypeError, ValueError, ArithmeticError, UserError) as error:
        raise UserError(f"{about}: no process that is supported ({_said(error)})") from error
    try:
        config = read_config(raw)
        config.check_size()
    except (KeyError, TypeError, IndexError, ValueError, ArithmeticError, UserError) as error:
        raise UserError(
            f"{unet / 'config.json'}: not a UNet2DModel of the reference's structure ({_said(error)})"
        ) from error
    path = next((unet / name for name in _FILES if (unet / name).exists()), None)
    if path is None:
        raise UserError(f"{unet}: no weights there ({' or '.join(_FILES)})")
    state = read_weights(path)
    _check_sizes(config, state, path)
    generator = Generator(config, make_process(process), (), placement)
    load_unet(state, generator.model, path)
    generator.notes = notes_of(scheduler)
    return generator


def _said(error: Exception) -> str:
    """The message of an error, without the quotation marks of a KeyError."""
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)[:200]


def read_config(raw: dict[str, Any]) -> UNetConfig:
    """diffusers' ``config.json`` → ours; KeyError for unsupported variants."""
    widths, kinds, size = _list(raw, "block_out_channels"), _list(raw, "down_block_types"), raw["sample_size"]
    for name, number in [("sample_size", size), *(("block_out_channels", width) for width in widths)]:
        if not isinstance(number, int) or not 0 < number <= MAX_SIZE:
            raise KeyError(f"{name} has {shown(number)}, not a number from 1 to {MAX_SIZE:,}")
    for name, only, usual in _ONLY:
        if raw.get(name, usual) != only:
            raise KeyError(f"{name} is {shown(raw.get(name, usual))}, not {only!r}")
    head_width = raw.get("attention_head_dim", 8)
    if head_width is not None and not (isinstance(head_width, int) and head_width >= 0):
        raise KeyError(f"attention_head_dim is {shown(head_width)}")
    with_attention = [w for w, kind in zip(widths, kinds, strict=True) if kind == "AttnDownBlock2D"]
    if head_width and len({*with_attention, widths[-1]}) > 1:
        raise KeyError(f"attention_head_dim is {head_width} at widths that differ, which makes other numbers of heads")
    _check_kinds(kinds, _list(raw, "up_block_types") if "up_block_types" in raw else None)
    return UNetConfig(
        height=size,
        width=size,
        channels=plain(raw, "in_channels"),
        base_width=widths[0],
        channel_multipliers=tuple(width // widths[0] for width in widths),
        num_blocks=plain(raw, "layers_per_block"),
        attention_resolutions=tuple(size >> level for level, kind in enumerate(kinds) if kind == "AttnDownBlock2D"),
        num_heads=max(1, widths[-1] // head_width) if head_width else 1,
        dropout=plain(raw, "dropout", 0.0),
        num_groups=plain(raw, "norm_num_groups", 32),
    )


def _list(raw: dict[str, Any], name: str) -> list[Any]:
    values = raw[name]
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= MAX_LEVELS:
        raise KeyError(f"{name} is {shown(values)}, not a list of 1 to {MAX_LEVELS}")
    return list(values)


def _check_kinds(down: list[Any], up: list[Any] | None) -> None:
    """KeyError for blocks that we do not have, or another kind of block on the way up than on the way down."""
    for kind in down:
        if not isinstance(kind, str) or kind not in _MIRRORED:
            raise KeyError(f"down_block_types has {shown(kind)}; supported are {' and '.join(_MIRRORED)}")
    expected = [_MIRRORED[kind] for kind in reversed(down)]
    if up is not None and up != expected:
        raise KeyError(
            f"up_block_types is {shown(up, 200)}, not {shown(expected, 200)}, down_block_types the other way"
        )


def _check_sizes(config: UNetConfig, state: dict[str, np.ndarray], where: Path) -> None:
    """Raises UserError for a configuration of a larger network than the weights', before the network is built."""
    blocks = {(int(found[1]), int(found[2])) for name in state if (found := _BLOCK.match(name))}
    widths = [config.base_width * multiplier for multiplier in config.channel_multipliers]
    levels, depth = len({level for level, _ in blocks}), len({block for level, block in blocks if level == 0})
    for what, said, there in (("levels", len(widths), levels), ("blocks a level", config.num_blocks, depth)):
        if said != there:
            raise UserError(f"{where}: the configuration says {said:,} {what}, the weights have {there:,}")
    expected = {"conv_in.weight": (config.base_width, config.channels, 3, 3)}
    for level, (before, width) in enumerate(zip([config.base_width, *widths], widths, strict=False)):
        expected[f"down_blocks.{level}.resnets.0.conv1.weight"] = (width, before, 3, 3)
    for name, shape in expected.items():
        if name not in state or state[name].shape != shape:
            wrong = f"has shape {state[name].shape}, not {shape}" if name in state else "is missing"
            raise UserError(f"{where}: {name} {wrong}; is it a checkpoint of this network?")


def load_unet(state: dict[str, np.ndarray], model: keras.Model, where: Path | str = "state") -> None:
    """Assigns every weight of ``model`` from a state dict; assigns none if the two differ in any name or shape.

    Raises:
        UserError: names the first missing or different weight, or weights that ``model`` has no place for.
    """
    left = dict(state)  # weights are taken out of it
    levels = sum(bool(_UP.fullmatch(layer.name)) for layer in model.layers) + 1
    values = []
    for layer in model.layers:
        for variable in layer.weights:
            if "seed_generator" in variable.path:
                continue
            value = _find(left, layer.name, variable.path.split("/")[1:], levels)
            if value is None or value.shape != tuple(variable.shape):
                wrong = "is missing" if value is None else f"has shape {value.shape}, not {tuple(variable.shape)}"
                raise UserError(f"{where}: the weight of {variable.path} {wrong}; is it a checkpoint of this network?")
            values.append((variable, value))
    if left:
        raise UserError(
            f"{where}: weights that this network has no place for: {first_names(sorted(left))}; "
            "is config.json that of this checkpoint?"
        )
    for variable, value in values:
        variable.assign(value)


def _find(left: dict[str, np.ndarray], layer: str, path: list[str], levels: int) -> np.ndarray | None:
    """One variable's value, in our layout; its weights are taken out of ``left``."""
    prefix = _prefix(layer, levels)
    kind = {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}[path[-1]]
    if path[0] == "qkv":
        parts = [_take(left, f"{prefix}.{name}", kind) for name in ("to_q", "to_k", "to_v")]
        return None if any(part is None for part in parts) else np.concatenate(parts, axis=-1)  # type: ignore[arg-type]
    return _take(left, f"{prefix}.to_out.0" if path[0] == "out" else prefix, kind)


def _take(left: dict[str, np.ndarray], name: str, kind: str) -> np.ndarray | None:
    """A tensor by its current or its earlier name, with inputs before outputs."""
    for now, old in {"": "", **_OLD}.items():
        value = left.pop(f"{name.replace(now, old) if now else name}.{kind}", None)
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
