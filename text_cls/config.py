"""Every choice of the text classifiers, and the configurations of their tasks."""

import dataclasses
from pathlib import Path
from typing import Self

from files.errors import UserError
from text_cls.data.csv_files import check_delimiter
from text_cls.data.text_files import check_encoding
from text_cls.encoders.config import BertClassifierConfig
from text_cls.layers.transformer_config import SizeConfig, TransformerConfig
from text_cls.tokens.length_config import FrozenEncoderConfig, LengthConfig, TunedEncoderConfig
from training.config import TaskConfig, TrainingConfig
from training.options import Config, nested, option

HEADLINES = {False: "accuracy", True: "mean_average_precision"}  # the figure that counts, by multi_label
FEWEST_SUBWORDS = 5 + 256  # the special tokens, and the bytes


@dataclasses.dataclass(frozen=True)
class DataConfig(Config):
    """Which data set is read, how it is split, and which rows are used."""

    dataset: str = option(
        "bbc_news", "Named data set, or the format of your own files.", choices="text_cls.data.datasets:DATASETS"
    )
    data_path: Path | None = option(None, "File or folder of the data set; ag_news and imdb can be downloaded.")
    test_path: Path | None = option(
        None, "File of test rows; if it has no labels, the rows are predicted but not scored."
    )
    text_fields: tuple[str, ...] = option(
        ("text",),
        "csv, jsonl: columns of the text; article.title is title inside article; --join_fields joins several columns.",
    )
    label_field: str = option("label", "csv, jsonl: column of the label.")
    split_field: str = option(
        "split",
        "csv, jsonl: column that says train, validation or test, used if it is there; empty: not used.",
        former_defaults=("",),
    )
    id_field: str = option("id", "csv, jsonl: column of the row's id, for predictions.csv; used if it is there.")
    validation_path: Path | None = option(None, "csv, jsonl: file of validation rows, in place of --validation_share.")
    multi_label: bool = option(False, "A text has any number of labels: a JSON list, or names separated by |.")
    columns: tuple[str, ...] = option((), "csv: names of the columns of a file without a header row.")
    delimiter: str = option(
        "auto", "csv: comma, tab, semicolon, pipe or any one character; auto: the one that fits the file."
    )
    quoting: str = option(
        "auto",
        'csv: a quotation mark inside a quoted text is doubled, or written \\"; none: quotation marks mean nothing.',
        choices="text_cls.data.csv_files:QUOTINGS",
    )
    encoding: str = option(
        "auto",
        "Encoding of text files, such as cp1252; auto: UTF-8. A byte order mark in the file overrides this flag.",
    )
    skip_bad_rows: bool = option(
        False, "Leave out unusable rows and report their number, instead of stopping at the first."
    )
    validation_share: float = option(0.1, "Share of the training rows for validation, stratified by class.")
    test_share: float = option(
        0.1, "Share of all rows for the test, stratified by class, where the data set has no test rows."
    )
    keep_rows: str = option(
        "", "COLUMN=VALUE or COLUMN=VALUE|VALUE: use only the rows of --data_path that have such a value."
    )
    merge_rare: int = option(
        0, "Merge classes with fewer training rows than this number into one class, 'other'; 0: off.", low=0
    )
    drop_rare: int = option(0, "Leave out classes with fewer training rows than this number; 0: off.", low=0)
    train_rows: int = option(0, "Number of training rows to draw at random; 0: use all. See --balanced_rows.", low=0)
    test_rows: int = option(0, "Number of test rows to draw at random; 0: use all. See --balanced_rows.", low=0)
    balanced_rows: bool = option(
        False, "Draw the same number of rows from every class; otherwise in proportion to the size of the class."
    )
    drop_duplicates: bool = option(False, "Drop training texts that also occur in the validation or test split.")
    join_fields: str = option(
        "sep",
        "How the fields of a text are joined: by <SEP>, by a space; pair: two fields are segments A and B (encoders).",
        choices=("sep", "space", "pair"),
    )

    max_megabytes: int = option(
        500, "Largest text file to read, in MB after unpacking.", low=1, high=10**6, affects_result=False
    )

    def check(self) -> None:
        for name, share in (("validation", self.validation_share), ("test", self.test_share)):
            if not 0 < share < 1:
                raise UserError(f"--{name}_share={share} must lie between 0 and 1")
        if self.merge_rare and self.drop_rare:
            raise UserError(f"--merge_rare={self.merge_rare} and --drop_rare={self.drop_rare}: use one of them")
        if self.multi_label and self.balanced_rows:
            raise UserError("--balanced_rows draws by class: leave it out with --multi_label")
        check_delimiter(self.delimiter)
        check_encoding(self.encoding)
        column, equals, _ = self.keep_rows.partition("=")
        if self.keep_rows and not (column and equals):
            raise UserError(f"--keep_rows={self.keep_rows!r}: write COLUMN=VALUE, several values with | between them")


@dataclasses.dataclass(frozen=True)
class CleaningConfig(Config):
    """How raw text becomes words; every field switches one step."""

    lower_case: bool = option(True, "Ignore the case of letters (case folding).")
    strip_html: bool = option(True, "Remove HTML tags, and decode HTML entities.")
    keep_punctuation: bool = option(True, "Punctuation marks are words; otherwise they are dropped.")
    keep_special: bool = option(
        True,
        "Other symbols (currency, mathematics, emoji) are words; otherwise they are dropped.",
    )
    stop_words: str = option("none", "none, sklearn, nltk (needs a download), or a file of words.")
    stemmer: str = option("none", "Stemmer of NLTK.", choices="text_cls.tokens.preprocess:STEMMERS")


@dataclasses.dataclass(frozen=True)
class VocabularyConfig(Config):
    """Which words or subwords of the training texts a model knows."""

    tokeniser: str = option(
        "words",
        "What a token is: a word, or a part of one (BPE over bytes, trained on the training texts; no <UNK>).",
        choices="text_cls.tokens.tokenisers:TOKENISERS",
    )
    vocabulary_size: int = option(
        20000, "Largest number of words or subwords (the most frequent), special tokens included.", low=6, high=10**7
    )
    min_count: int = option(2, "Number of occurrences that a word or subword needs to enter the vocabulary.", low=1)

    def check(self) -> None:
        if self.tokeniser == "subwords" and self.vocabulary_size < FEWEST_SUBWORDS:
            raise UserError(
                f"--vocabulary_size={self.vocabulary_size} is too small for --tokeniser=subwords, which begins "
                f"with 5 special tokens and 256 bytes: use at least {FEWEST_SUBWORDS}; several thousand are useful"
            )


@dataclasses.dataclass(frozen=True)
class LinearConfig(Config):
    """Linear models that are added to the network."""

    linear: str = option(
        "auto",
        "Linear models (SVM and naive Bayes) whose scores are added to the network's logits. words: on words and pairs "
        "of words; parts: also on 2 to 5 characters inside words; auto: parts for up to 2 million training words. "
        "Their weights are chosen on held-out texts; then they are fitted again, with the validation split.",
        choices=("auto", "parts", "words", "none"),
    )


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig(Config):
    """The size of a batch in tokens, and the loss."""

    batch_tokens: int = option(0, "Tokens in a batch, padding included, instead of --batch_size rows; 0: off.", low=0)
    label_smoothing: float = option(
        0.0, "Share of the target probability that is spread over all classes.", low=0.0, high=0.99
    )
    class_weights: str = option(
        "none", "Weights of the classes in the loss.", choices="text_cls.evaluation.class_weights:CLASS_WEIGHTS"
    )
    focal_gamma: float = option(
        0.0, "γ of the focal loss: texts that are confidently classified right count less; 0: off.", low=0.0, high=10.0
    )
    logit_adjustment: float = option(
        0.0,
        "τ of logit adjustment (Menon et al. 2021): τ · log(share of the class) is added to the logits in the loss, so "
        "that rare classes are predicted more often; 0: off.",
        low=0.0,
        high=10.0,
    )

    def check(self) -> None:
        if self.logit_adjustment and self.class_weights != "none":
            raise UserError(
                f"--logit_adjustment={self.logit_adjustment} and --class_weights={self.class_weights} both correct for "
                "classes of different sizes: use one of them"
            )


@dataclasses.dataclass(frozen=True)
class TuningConfig(Config):
    """Which weights of a published encoder are trained, and at which rates."""

    dropout: float | None = option(
        None, "Dropout of the encoder, attention included. [the checkpoint's]", low=0.0, high=0.99
    )
    head_rate: float = option(1.0, "Learning rate of the new head, as a multiple of --learning_rate.", low=0.0)
    freeze_layers: int = option(
        0, "Freeze the embeddings and this number of the lowest layers; 0: freeze nothing.", low=0
    )
    layer_decay: float = option(
        1.0, "Learning rate of each layer, as a multiple of that of the layer above.", low=0.0, high=1.0
    )
    lora_rank: int = option(
        0, "Rank of low-rank updates (LoRA), trained in place of the encoder's weights; 0: no LoRA.", low=0
    )
    mlm_epochs: float = option(
        0.0, "Epochs of masked language modelling on the training texts before fine-tuning.", low=0.0
    )
    mlm_learning_rate: float = option(5e-5, "Peak learning rate of masked language modelling.", low=0.0)

    def check(self) -> None:
        if self.lora_rank and (self.freeze_layers or self.layer_decay != 1.0):
            raise UserError(
                "--lora_rank freezes all weights of the encoder: leave out --freeze_layers and --layer_decay"
            )
        if self.mlm_epochs and self.freeze_layers:
            raise UserError("--mlm_epochs trains every layer: leave out --freeze_layers")


@dataclasses.dataclass(frozen=True)
class TextTaskConfig(TaskConfig):
    """The choices for training any text classifier."""

    data: DataConfig = nested(DataConfig)
    objective: ObjectiveConfig = nested(ObjectiveConfig)
    training: TrainingConfig = nested(TrainingConfig, select="auto")
    init_from: Path | None = option(
        None, "Folder of a finished run; this run starts from its vocabulary and its weights."
    )
    report: bool = option(
        True,
        "Write report.html, one page with all figures and pictures, errors, explained texts and t-SNE.",
        affects_result=False,
    )
    tsne: int = option(1000, "Number of test texts in the t-SNE pictures of the pooled vectors; 0: no picture.", low=0)
    interactive: bool = option(
        False,
        "Also write a 3-D t-SNE picture that can be rotated, in report.html and tsne.html (needs plotly).",
        affects_result=False,
    )
    suspects: int = option(
        0,
        "Number of training rows in suspects.csv: the rows whose labels are most likely wrong, according to models "
        "that were not trained on them; 0: off.",
        low=0,
    )

    def check(self) -> None:
        if self.data.multi_label and self.objective.logit_adjustment:
            raise UserError(
                f"--logit_adjustment={self.objective.logit_adjustment}: leave it out with --multi_label, where each "
                "class has its own threshold, fitted on the validation split, with the same effect"
            )

    def settled(self) -> Self:
        if self.training.select != "auto":
            return self
        training = dataclasses.replace(self.training, select=HEADLINES[self.data.multi_label])
        return dataclasses.replace(self, training=training)


@dataclasses.dataclass(frozen=True)
class ClassifierConfig(TextTaskConfig):
    """A Transformer trained on texts from scratch; ``text_cls.task.train_classifier``."""

    cleaning: CleaningConfig = nested(CleaningConfig)
    vocabulary: VocabularyConfig = nested(VocabularyConfig)
    length: LengthConfig = nested(LengthConfig)
    linear: LinearConfig = nested(LinearConfig)
    size: SizeConfig = nested(SizeConfig)
    model: TransformerConfig = nested(TransformerConfig)
    training: TrainingConfig = nested(TrainingConfig, num_epochs=None, ema_decay=0.998, select="loss")
    objective: ObjectiveConfig = nested(ObjectiveConfig, label_smoothing=0.1)


@dataclasses.dataclass(frozen=True)
class FineTuningConfig(TextTaskConfig):
    """A published encoder fine-tuned on texts; ``text_cls.fine_tuning.fine_tune``."""

    data: DataConfig = nested(DataConfig, join_fields="space")
    encoder: TunedEncoderConfig = nested(TunedEncoderConfig, max_length=128)
    model: BertClassifierConfig = nested(BertClassifierConfig, pooling="auto")
    tuning: TuningConfig = nested(TuningConfig)
    training: TrainingConfig = nested(TrainingConfig, batch_size=32, num_epochs=3.0, learning_rate=5e-5, select="auto")
    export: bool = option(
        False,
        "Write RUN/encoder, which --encoder and transformers read. If --pooling is the one of the encoder's family "
        "(pooler, pre_classifier, dense_gelu), also write the whole classifier, RUN/classifier.",
    )


@dataclasses.dataclass(frozen=True)
class EmbeddingConfig(TaskConfig):
    """Hidden states of a frozen encoder, written to disk; ``text_cls.features.embed_texts``."""

    data: DataConfig = nested(DataConfig, join_fields="space")
    encoder: FrozenEncoderConfig = nested(FrozenEncoderConfig)
    layers: tuple[int, ...] = option(
        (-1,), "Hidden states to write; 0: embeddings, 1: output of the first layer, -1: of the last."
    )
    pooling: str = option(
        "cls", "How the tokens' vectors become one vector of the text.", choices="text_cls.layers.pooling:POOLINGS"
    )
    dtype: str = option("float32", "Number format of the arrays.", choices=("float32", "float16"))
