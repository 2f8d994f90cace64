"""The families of published encoders: how their files differ in names and in content.

There is one record for each family, for reading and for writing. Our names are the fields of ``BertConfig``, and the
names of BERT's tensors in Hugging Face's format, with two more: ``embeddings_project`` (a dense layer after narrow
embeddings) and ``encoder.relative_attention_bias``.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

Names = tuple[tuple[str, str], ...]


class ClassifierForm(NamedTuple):
    """A whole classifier of the family: a dense layer on [CLS], and then a second dense layer, the classifier.

    Attributes:
        architecture: the name of its class in ``transformers``.
        pooling: our name of the first layer.
        dense: name of the first layer's tensors; those of a pooler belong to the encoder.
        classifier: name of the second layer's tensors.
        dropout: the field of the configuration with the dropout before the classifier.
        default: this dropout if the field is missing; None: the dropout of hidden vectors.
    """

    architecture: str
    pooling: str
    dense: str
    classifier: str = "classifier"
    dropout: str = "classifier_dropout"
    default: float | None = None

    @property
    def in_encoder(self) -> bool:
        """Whether the first layer's tensors belong to the encoder."""
        return self.dense.startswith("pooler.")

    @property
    def begins_anew(self) -> bool:
        """Whether a pooler on a plain encoder is a new layer, because only the family's classifiers have one."""
        return self.pooling == "pooler" and not self.in_encoder


class Family(NamedTuple):
    """The differences of one family's files.

    Attributes:
        form: of its whole classifiers.
        fields: our field → their field in ``config.json``, and its default; a field with ``...`` is required.
        prefix: of the encoder's tensors in a model with a head.
        tokeniser: the class of ``transformers`` that reads the tokeniser.
        fixed: our fields that are not in their configuration.
        only: their fields with the only value that is supported, which is also written.
        names: pairs of the beginnings of their tensors' names and of ours; ``{i}`` is a number.
        late_positions: whether the first token's position is padding's id plus 1; the rows before are unused.
        always_projected: whether the dense layer after the embeddings exists even if they have the hidden width.
        wordpiece: whether the tokeniser is BERT's; otherwise it is described by ``tokenizer.json``.
    """

    form: ClassifierForm
    fields: dict[str, tuple[str, Any]]
    prefix: str
    tokeniser: str = "PreTrainedTokenizerFast"
    fixed: Mapping[str, Any] = MappingProxyType({})
    only: Mapping[str, Any] = MappingProxyType({})
    names: Names = ()
    late_positions: bool = False
    always_projected: bool = False
    wordpiece: bool = True

    @property
    def has_segments(self) -> bool:
        """Whether an encoder may have a table of segments."""
        return "num_segments" in self.fields


_SIZES: dict[str, tuple[str, Any]] = {
    "vocabulary_size": ("vocab_size", ...),
    "width": ("hidden_size", ...),
    "num_layers": ("num_hidden_layers", ...),
    "num_heads": ("num_attention_heads", ...),
    "ffn_width": ("intermediate_size", ...),
    "max_positions": ("max_position_embeddings", ...),
    "activation": ("hidden_act", "gelu"),
    "norm_epsilon": ("layer_norm_eps", 1e-12),
    "dropout": ("hidden_dropout_prob", 0.1),
    "attention_dropout": ("attention_probs_dropout_prob", 0.1),
}
_SEGMENTS = {"num_segments": ("type_vocab_size", 2)}
_NARROW = {"embedding_width": ("embedding_size", 128)}
_DISTILBERT: dict[str, tuple[str, Any]] = {
    "vocabulary_size": ("vocab_size", ...),
    "width": ("dim", ...),
    "num_layers": ("n_layers", ...),
    "num_heads": ("n_heads", ...),
    "ffn_width": ("hidden_dim", ...),
    "max_positions": ("max_position_embeddings", ...),
    "activation": ("activation", "gelu"),
    "dropout": ("dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
}
_ALBERT_DEFAULTS = {
    "activation": ("hidden_act", "gelu_new"),
    "dropout": ("hidden_dropout_prob", 0.0),
    "attention_dropout": ("attention_probs_dropout_prob", 0.0),
}


def _in_block(theirs: str, ours: str, **parts: str) -> Names:
    """The names of a block's parts: pairs of their prefix and part, and ours."""
    return tuple((f"{theirs}.{there}.", f"{ours}.{PARTS[here]}.") for here, there in parts.items())


PARTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "norm": "output.LayerNorm",
}


def _roberta(name: str) -> Family:
    """BERT's layers, with late positions and another head."""
    return Family(
        ClassifierForm(f"{name}ForSequenceClassification", "pooler", "classifier.dense", "classifier.out_proj"),
        _SIZES | _SEGMENTS | {"pad_id": ("pad_token_id", 1)},
        "roberta.",
        late_positions=True,
        wordpiece=False,
    )


# By ``model_type`` of config.json. Devlin et al. 2019; Sanh et al. 2019; Liu et al. 2019; Conneau et al. 2020;
# Martin et al. 2020; Clark et al. 2020; Lan et al. 2020; Song et al. 2020.
FAMILIES = {
    "bert": Family(
        ClassifierForm("BertForSequenceClassification", "pooler", "pooler.dense"),
        _SIZES | _SEGMENTS, "bert.", "BertTokenizer",
    ),
    "distilbert": Family(
        ClassifierForm("DistilBertForSequenceClassification", "pre_classifier", "pre_classifier",
                       dropout="seq_classif_dropout", default=0.2),
        _DISTILBERT,
        "distilbert.",
        "DistilBertTokenizer",
        fixed={"num_segments": 0, "norm_epsilon": 1e-12},
        names=_in_block(
            "transformer.layer.{i}", "encoder.layer.{i}", query="attention.q_lin", key="attention.k_lin",
            value="attention.v_lin", out="attention.out_lin", attention_norm="sa_layer_norm", widen="ffn.lin1",
            narrow="ffn.lin2", norm="output_layer_norm",
        ),
    ),
    "roberta": _roberta("Roberta"),
    "xlm-roberta": _roberta("XLMRoberta"),
    "camembert": _roberta("Camembert"),
    "electra": Family(
        ClassifierForm("ElectraForSequenceClassification", "dense_gelu", "classifier.dense", "classifier.out_proj"),
        _SIZES | _SEGMENTS | _NARROW,
        "electra.",
        "ElectraTokenizer",
    ),
    "albert": Family(
        ClassifierForm("AlbertForSequenceClassification", "pooler", "pooler.dense", dropout="classifier_dropout_prob",
             default=0.1),
        _SIZES | _SEGMENTS | _NARROW | _ALBERT_DEFAULTS | {"pad_id": ("pad_token_id", 0)},
        "albert.",
        fixed={"shared_blocks": True},
        only={"num_hidden_groups": 1, "inner_group_num": 1},
        names=(
            ("encoder.embedding_hidden_mapping_in.", "embeddings_project."),
            ("pooler.", "pooler.dense."),
            *_in_block(
                "encoder.albert_layer_groups.0.albert_layers.0", "encoder.layer.0", query="attention.query",
                key="attention.key", value="attention.value", out="attention.dense",
                attention_norm="attention.LayerNorm", widen="ffn", narrow="ffn_output", norm="full_layer_layer_norm",
            ),
        ),
        always_projected=True,
        wordpiece=False,
    ),
    "mpnet": Family(
        ClassifierForm("MPNetForSequenceClassification", "pooler", "classifier.dense", "classifier.out_proj",
             "hidden_dropout_prob"),
        _SIZES,
        "mpnet.",
        fixed={"num_segments": 0, "pad_id": 1, "relative_buckets": 32},
        only={"relative_attention_num_buckets": 32, "pad_token_id": 1},
        names=_in_block(
            "encoder.layer.{i}", "encoder.layer.{i}", query="attention.attn.q", key="attention.attn.k",
            value="attention.attn.v", out="attention.attn.o", attention_norm="attention.LayerNorm",
        ),
        late_positions=True,
        wordpiece=False,
    ),
}  # fmt: skip
FORMS = {family.form.architecture: family.form for family in FAMILIES.values()}
# Families whose tensors have the same names, but whose encoders differ.
OTHERS = (
    "bart", "bigbird", "canine", "convbert", "data2vec", "deberta", "ernie", "esm", "flaubert", "funnel", "ibert",
    "jinabert", "layoutlm", "lilt", "longformer", "luke", "markuplm", "megatron", "mobilebert", "modernbert", "mra",
    "nezha", "nomicbert", "nystromformer", "qdqbert", "rembert", "robertaprelayernorm", "roformer", "splinter",
    "squeezebert", "visualbert", "xlmrobertaxl", "xlnet", "xmod", "yoso",
)  # fmt: skip
SUPPORTED = ", ".join(FAMILIES)


def class_name(model_type: str) -> str:
    """The beginning of the names of a family's classes, in lower case."""
    return model_type.replace("-", "").replace("_", "")


def to_ours(name: str, names: Names) -> str:
    """A tensor's name in a family → our name."""
    return _translated(name, names)


def to_theirs(name: str, names: Names) -> str:
    """Our name of a tensor → its name in a family."""
    return _translated(name, tuple((ours, theirs) for theirs, ours in names))


def _translated(name: str, names: Names) -> str:
    for old, new in names:
        found = re.match(re.escape(old).replace(r"\{i\}", r"(\d{1,6})"), name)
        if found:
            return new.replace("{i}", found[1] if found.groups() else "") + name[found.end() :]
    return name
