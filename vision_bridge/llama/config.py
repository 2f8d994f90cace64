"""The sizes of a Llama 3.2 Vision model, also from a published ``config.json``. Imports no Keras."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from files.documents import shown
from files.errors import UserError

ASPECT_RATIOS = ((1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1))  # rows, columns of tiles; ids from 1


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The vision tower; the defaults are those of the 11B model."""

    image_size: int = 560  # of a tile
    patch_size: int = 14
    channels: int = 3
    max_tiles: int = 4
    width: int = 1280
    num_heads: int = 16
    ffn_width: int = 5120
    num_layers: int = 32
    num_global_layers: int = 8
    taps: tuple[int, ...] = (3, 7, 15, 23, 30)  # local layers whose inputs are part of the output
    norm_epsilon: float = 1e-5
    late_taps: bool = False  # the outputs of these layers instead of the inputs, see ``LlamaConfig.as_in``

    @property
    def tapped(self) -> tuple[int, ...]:
        """Layers whose inputs are part of the output; the number after the last layer means the last layer's output."""
        return tuple(tap + self.late_taps for tap in self.taps)

    @property
    def tokens(self) -> int:
        """Tokens of a tile: a class token and its patches."""
        return 1 + (self.image_size // self.patch_size) ** 2

    @property
    def output_width(self) -> int:
        """Width of the final state and the taps together."""
        return self.width * (1 + len(self.taps))


@dataclasses.dataclass(frozen=True)
class RotaryConfig:
    """Rotary positions with Llama 3's scaling; ``factor`` 1: no scaling."""

    theta: float = 500_000.0
    factor: float = 8.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_positions: int = 8192


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The text decoder; the defaults are those of the 11B model."""

    vocabulary: int = 128_256  # rows of the head; the embeddings have ``EXTRA_ROWS`` more
    width: int = 4096
    num_heads: int = 32
    num_key_value_heads: int = 8
    ffn_width: int = 14_336
    num_layers: int = 40
    cross_layers: tuple[int, ...] = (3, 8, 13, 18, 23, 28, 33, 38)
    positions: int = 131_072
    norm_epsilon: float = 1e-5
    rotary: RotaryConfig = RotaryConfig()

    @property
    def head_width(self) -> int:
        return self.width // self.num_heads


VARIANTS = ("makers", "transformers")
EXTRA_ROWS = 8  # of the embeddings: for the image token and other tokens that are never predicted


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Tower and decoder, and the ids of special tokens."""

    vision: VisionConfig = VisionConfig()
    text: TextConfig = TextConfig()
    image_token: int = 128_256
    pad_token: int = 128_004
    begin_token: int = 128_000
    end_tokens: tuple[int, ...] = (128_001, 128_008, 128_009)
    row_mask: bool = True  # the output of cross-attention is 0 for a token that sees no picture

    def as_in(self, variant: str) -> Self:
        """The same sizes, computed as in one of ``VARIANTS``.

        ``makers``: as in the makers' code. ``transformers``: as in transformers 4.56 to 5.24, for checkpoints that were
        fine-tuned with it: the tower's taps are one layer late, and a token before its picture sees the whole picture.
        """
        other = variant == "transformers"
        return dataclasses.replace(self, vision=dataclasses.replace(self.vision, late_taps=other), row_mask=not other)


def config_of(published: Mapping[str, Any], where: str) -> LlamaConfig:
    """The configuration that a published ``config.json`` describes.

    Raises:
        UserError: another architecture, a missing size, or a choice that our layers do not support.
    """
    if published.get("model_type") != "mllama":
        raise UserError(f"{where}: model_type is {shown(published.get('model_type'))}; Llama 3.2 Vision has 'mllama'")
    try:
        return _config_of(published, where)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}: not a configuration of Llama 3.2 Vision: {shown(str(error))} is missing or wrong"
        ) from error


def _config_of(published: Mapping[str, Any], where: str) -> LlamaConfig:
    vision, text = published["vision_config"], published["text_config"]
    scaling = text.get("rope_parameters") or text["rope_scaling"]
    for name, found, wanted in (
        ("vision_config.hidden_act", vision.get("hidden_act", "gelu"), "gelu"),
        ("text_config.hidden_act", text.get("hidden_act", "silu"), "silu"),
        ("rope_type", scaling["rope_type"], "llama3"),
        ("tie_word_embeddings", bool(text.get("tie_word_embeddings")), False),
        ("supported_aspect_ratios", tuple(map(tuple, vision["supported_aspect_ratios"])), ASPECT_RATIOS),
    ):
        if found != wanted:
            raise UserError(f"{where}: {name} is {shown(found)}, and only {shown(wanted)} is supported")
    end = text["eos_token_id"]
    return LlamaConfig(
        VisionConfig(
            int(vision["image_size"]), int(vision["patch_size"]), int(vision.get("num_channels", 3)),
            int(vision["max_num_tiles"]), int(vision["hidden_size"]), int(vision["attention_heads"]),
            int(vision["intermediate_size"]), int(vision["num_hidden_layers"]), int(vision["num_global_layers"]),
            tuple(map(int, vision["intermediate_layers_indices"])), float(vision["norm_eps"]),
        ),
        TextConfig(
            int(text["vocab_size"]), int(text["hidden_size"]), int(text["num_attention_heads"]),
            int(text["num_key_value_heads"]), int(text["intermediate_size"]), int(text["num_hidden_layers"]),
            tuple(map(int, text["cross_attention_layers"])), int(text["max_position_embeddings"]),
            float(text["rms_norm_eps"]),
            RotaryConfig(
                float(scaling.get("rope_theta", text.get("rope_theta", 0))), float(scaling["factor"]),
                float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"]),
                int(scaling["original_max_position_embeddings"]),
            ),
        ),
        int(published["image_token_index"]), int(text["pad_token_id"]), int(text["bos_token_id"]),
        tuple(map(int, end)) if isinstance(end, list) else (int(end),),
    )  # fmt: skip


def published_of(config: LlamaConfig) -> dict[str, Any]:
    """The published ``config.json`` of a configuration, the inverse of ``config_of``."""
    vision, text, rotary = config.vision, config.text, config.text.rotary
    return {
        "architectures": ["MllamaForConditionalGeneration"],
        "model_type": "mllama",
        "image_token_index": config.image_token,
        "vision_config": {
            "model_type": "mllama_vision_model", "image_size": vision.image_size, "patch_size": vision.patch_size,
            "num_channels": vision.channels, "max_num_tiles": vision.max_tiles, "hidden_size": vision.width,
            "attention_heads": vision.num_heads, "intermediate_size": vision.ffn_width, "hidden_act": "gelu",
            "num_hidden_layers": vision.num_layers, "num_global_layers": vision.num_global_layers,
            "intermediate_layers_indices": list(vision.taps), "norm_eps": vision.norm_epsilon,
            "vision_output_dim": vision.output_width, "supported_aspect_ratios": [list(one) for one in ASPECT_RATIOS],
        },
        "text_config": {
            "model_type": "mllama_text_model", "vocab_size": text.vocabulary, "hidden_size": text.width,
            "num_attention_heads": text.num_heads, "num_key_value_heads": text.num_key_value_heads,
            "intermediate_size": text.ffn_width, "num_hidden_layers": text.num_layers, "hidden_act": "silu",
            "cross_attention_layers": list(text.cross_layers), "max_position_embeddings": text.positions,
            "rms_norm_eps": text.norm_epsilon, "tie_word_embeddings": False, "bos_token_id": config.begin_token,
            "pad_token_id": config.pad_token, "eos_token_id": list(config.end_tokens), "rope_theta": rotary.theta,
            "rope_scaling": {
                "rope_type": "llama3", "factor": rotary.factor, "low_freq_factor": rotary.low_frequency_factor,
                "high_freq_factor": rotary.high_frequency_factor,
                "original_max_position_embeddings": rotary.original_positions,
            },
        },
    }  # fmt: skip
