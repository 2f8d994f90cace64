"""Kernels of frozen linear maps as 8 or 4 bits, by the layers' own ``quantize``. Not measured on a GPU."""

from collections.abc import Iterator

import keras
from keras import layers

from vision_bridge.llama.model import LlamaVision
from vision_bridge.llama.objective import lora_layers

CONFIGS = {  # only kernels are rounded, not the states that they multiply
    "int8": lambda: keras.quantizers.Int8QuantizationConfig(activation_quantizer=None),
    "int4": lambda: keras.quantizers.Int4QuantizationConfig(block_size=128),
}


def quantise(model: LlamaVision, to: str) -> None:
    """Rounds the kernels of all linear maps within the layers of the tower and of the decoder.

    ``int8``: to 255 values, with a scale for each output. ``int4``: to 16 values, with a scale and a zero for each
    output and 128 inputs. ``none``: no rounding. Embeddings, norms, projector and head stay as they are. Low-rank
    updates are added afterwards and are not rounded.

    Args:
        model: with its weights.
        to: none, int8 or int4.
    """
    if to != "none":
        for layer in quantised_layers(model):
            layer.quantize(config=CONFIGS[to]())


def quantised_layers(model: LlamaVision) -> Iterator[layers.Dense]:
    """The linear maps within the layers of the tower, then of the decoder."""
    tower = model.vision_model
    for block in (*tower.transformer.blocks, *tower.global_transformer.blocks):
        attention, mlp = block.self_attn, block.mlp
        yield from (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, mlp.fc1, mlp.fc2)
    yield from lora_layers(model, "all")
