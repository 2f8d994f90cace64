"""Name and shape of every tensor of a published checkpoint. Imports no Keras, allocates nothing."""

from vision_bridge.llama.config import ASPECT_RATIOS, EXTRA_ROWS, LlamaConfig, TextConfig, VisionConfig

Shapes = dict[str, tuple[int, ...]]


def published_shapes(config: LlamaConfig) -> Shapes:
    """Name → shape for the whole model; linear maps are [out, in]."""
    text, vision = config.text, config.vision
    shapes: Shapes = {f"vision_model.{name}": shape for name, shape in _tower(vision).items()}
    shapes |= {
        "multi_modal_projector.weight": (text.width, vision.output_width),
        "multi_modal_projector.bias": (text.width,),
        "language_model.model.embed_tokens.weight": (text.vocabulary + EXTRA_ROWS, text.width),
    }
    for number in range(text.num_layers):
        layer = _cross_layer(text) if number in text.cross_layers else _self_layer(text)
        shapes |= {f"language_model.model.layers.{number}.{name}": shape for name, shape in layer.items()}
    return shapes | {
        "language_model.model.norm.weight": (text.width,),
        "language_model.lm_head.weight": (text.vocabulary, text.width),
    }


def _tower(config: VisionConfig) -> Shapes:
    width, rows = config.width, len(ASPECT_RATIOS) + 1
    shapes: Shapes = {
        "class_embedding": (width,),
        "patch_embedding.weight": (width, config.channels, config.patch_size, config.patch_size),
        "gated_positional_embedding.gate": (1,),
        "gated_positional_embedding.embedding": (config.tokens, width),
        "gated_positional_embedding.tile_embedding.weight": (rows, config.max_tiles * config.tokens * width),
    }
    for place in ("pre", "post"):
        shapes[f"{place}_tile_positional_embedding.gate"] = (1,)
        shapes[f"{place}_tile_positional_embedding.embedding.weight"] = (rows, config.max_tiles * width)
        shapes |= _norm(f"layernorm_{place}", width)
    for part, count, gated in (
        ("transformer", config.num_layers, False), ("global_transformer", config.num_global_layers, True)
    ):  # fmt: skip
        for number in range(count):
            layer = _tower_layer(config, gated)
            shapes |= {f"{part}.layers.{number}.{name}": shape for name, shape in layer.items()}
    return shapes


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _tower_layer(config: VisionConfig, gated: bool) -> Shapes:
    width, ffn = config.width, config.ffn_width
    shapes: Shapes = {f"self_attn.{letter}_proj.weight": (width, width) for letter in "qkvo"}
    shapes |= {"mlp.fc1.weight": (ffn, width), "mlp.fc1.bias": (ffn,)}
    shapes |= {"mlp.fc2.weight": (width, ffn), "mlp.fc2.bias": (width,)}
    shapes |= _norm("input_layernorm", width) | _norm("post_attention_layernorm", width)
    return shapes | ({"gate_attn": (1,), "gate_ffn": (1,)} if gated else {})


def _self_layer(config: TextConfig) -> Shapes:
    return _attention(config, "self_attn") | _rest(config)


def _cross_layer(config: TextConfig) -> Shapes:
    norms: Shapes = {f"cross_attn.{letter}_norm.weight": (config.head_width,) for letter in "qk"}
    gates: Shapes = {"cross_attn_attn_gate": (1,), "cross_attn_mlp_gate": (1,)}
    return _attention(config, "cross_attn") | norms | gates | _rest(config)


def _attention(config: TextConfig, name: str) -> Shapes:
    width, narrow = config.width, config.num_key_value_heads * config.head_width
    out = {"q": width, "k": narrow, "v": narrow, "o": width}
    return {f"{name}.{letter}_proj.weight": (size, width) for letter, size in out.items()}


def _rest(config: TextConfig) -> Shapes:
    width, ffn = config.width, config.ffn_width
    return {
        "mlp.gate_proj.weight": (ffn, width),
        "mlp.up_proj.weight": (ffn, width),
        "mlp.down_proj.weight": (width, ffn),
        "input_layernorm.weight": (width,),
        "post_attention_layernorm.weight": (width,),
    }
