"""Every choice of the text classifiers, and the configurations of their tasks."""

import dataclasses
from pathlib import Path
from typing import Self

from files.errors import UserError
from text_cls.csv_files import check_delimiter
from text_cls.encoder_config import BertClassifierConfig
from text_cls.length_config import FrozenEncoderConfig, LengthConfig, TunedEncoderConfig
from text_cls.text_files import check_encoding
from text_cls.transformer_config import SizeConfig, TransformerConfig
from training.config import TaskConfig, TrainingConfig
from training.options import Config, nested, option

HEADLINES = {False: "accuracy", True: "mean_average_precision"}  # the figure that counts, by multi_label
FEWEST_SUBWORDS = 5 + 256  # the special tokens, and the bytes


@dataclasses.dataclass(frozen=True)
class DataConfig(Config):
    """Which data set is read, how it is split, and which rows are used."""

    dataset: str = option("bbc_news", "Named data set, or the form of your own.", choices="text_cls.datasets:DATASETS")
    data_path: Path | None = option(None, "File or folder of the data set; ag_news and imdb can be downloaded.")
    test_path: Path | None = option(None, "File of test rows; without labels they are predicted, not scored.")
    text_fields: tuple[str, ...] = option(
        ("text",), "csv, jsonl: columns of the text, article.title inside another; several: see --join_fields."
    )
    label_field: str = option("label", "csv, jsonl: column of the label.")
    split_field: str = option(
        "split",
        "csv, jsonl: column that says train, validation or test, used if it is there; empty: not used.",
        former_defaults=("",),
    )
    id_field: str = option("id", "csv, jsonl: column of the row's id, for predictions.csv; used if it is there.")
    validation_path: Path | None = option(None, "csv, jsonl: file of validation rows, instead of a share.")
    multi_label: bool = option(False, "A text has any number of labels: a JSON list, or names with | between them.")
    columns: tuple[str, ...] = option((), "csv: names of the columns of a file without a header row.")
    delimiter: str = option("auto", "csv: comma, tab, semicolon, pipe or a character; auto: the one that fits.")
    quoting: str = option(
        "auto",
        'csv: how a quotation mark in a quoted text is written: doubled, or \\"; none: quotes mean nothing.',
        choices="text_cls.csv_files:QUOTINGS",
    )
    encoding: str = option(
        "auto", "Encoding of text files, such as cp1252; auto: UTF-8. A byte order mark decides against either."
    )
    skip_bad_rows: bool = option(False, "Count unusable rows and go on, instead of stopping at the first.")
    validation_share: float = option(0.1, "Share of the training rows for validation, stratified by class.")
    test_share: float = option(
        0.1, "Share of all rows for the test, stratified by class, where the data set has no test rows."
    )
    keep_rows: str = option("", "COLUMN=VALUE or COLUMN=VALUE|VALUE: use only such rows of --data_path.")
    merge_rare: int = option(0, "Classes of fewer training rows become one class, 'other'; 0: off.", low=0)
    drop_rare: int = option(0, "Leave out classes of fewer training rows; 0: off.", low=0)
    train_rows: int = option(0, "Use only so many training rows, drawn by class and seed; 0: all.", low=0)
    test_rows: int = option(0, "Use only so many test rows, drawn by class and seed; 0: all.", low=0)
    balanced_rows: bool = option(
        False, "Draw the same number of rows from every class; otherwise by the classes' shares."
    )
    drop_duplicates: bool = option(False, "Drop training texts that are in validation or test as well.")
    join_fields: str = option(
        "sep",
        "What is put between the fields of a text: <SEP>, a space; pair: two fields are segments A and B (encoders).",
        choices=("sep", "space", "pair"),
    )

    max_megabytes: int = option(
        500, "Largest file of texts that is read, unpacked, in MB.", low=1, high=10**6, affects_result=False
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

    lower_case: bool = option(True, "Fold case.")
    strip_html: bool = option(True, "Drop tags, resolve entities.")
    keep_punctuation: bool = option(True, "Punctuation marks are words; otherwise they are dropped.")
    keep_special: bool = option(
        True,
        "Other symbols (currency, mathematics, emoji) are words; otherwise they are dropped.",
    )
    stop_words: str = option("none", "none, sklearn, nltk (needs a download), or a file of words.")
    stemmer: str = option("none", "Stemmer of NLTK.", choices="text_cls.preprocess:STEMMERS")


@dataclasses.dataclass(frozen=True)
class VocabularyConfig(Config):
    """Which words or subwords of the training texts a model knows."""

    tokeniser: str = option(
        "words",
        "What a token is: a word, or a part of one (BPE over bytes, trained on the training texts; no <UNK>).",
        choices="text_cls.tokenisers:TOKENISERS",
    )
    vocabulary_size: int = option(20000, "Most frequent words or subwords, special tokens included.", low=6, high=10**7)
    min_count: int = option(2, "Occurrences a word or a subword needs to be in the vocabulary.", low=1)

    def check(self) -> None:
        if self.tokeniser == "subwords" and self.vocabulary_size < FEWEST_SUBWORDS:
            raise UserError(
                f"--vocabulary_size={self.vocabulary_size} is too few for --tokeniser=subwords, which begins with "
                f"5 special tokens and 256 bytes: {FEWEST_SUBWORDS} or more are needed, some thousands are of use"
            )


@dataclasses.dataclass(frozen=True)
class LinearConfig(Config):
    """Linear models that are added to the network."""

    linear: str = option(
        "auto",
        "Linear models (SVM and naive Bayes) whose scores are added to the network's logits: on words and pairs of "
        "words; parts: on 2 to 5 characters inside words as well; auto: parts for up to 2 million training words. "
        "Texts that they have not seen choose their weights; then they are fitted on the validation split too.",
        choices=("auto", "parts", "words", "none"),
    )


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig(Config):
    """The size of a batch in tokens, and the loss."""

    batch_tokens: int = option(0, "Tokens in a batch, padding included, instead of --batch_size rows; 0: off.", low=0)
    label_smoothing: float = option(0.0, "Share of the target spread over all classes.", low=0.0, high=0.99)
    class_weights: str = option(
        "none", "Weights of the classes in the loss.", choices="text_cls.class_weights:CLASS_WEIGHTS"
    )
    focal_gamma: float = option(
        0.0, "Focal loss: texts that are answered right with confidence count less; 0: off.", low=0.0, high=10.0
    )
    logit_adjustment: float = option(
        0.0,
        "Share of the logarithm of the classes' shares in the loss's logits: rare classes are answered as readily at "
        "1; 0: off.",
        low=0.0,
        high=10.0,
    )

    def check(self) -> None:
        if self.logit_adjustment and self.class_weights != "none":
            raise UserError(
                f"--logit_adjustment={self.logit_adjustment} and --class_weights={self.class_weights} both correct for "
                "the classes' shares, together twice: use one of them"
            )


@dataclasses.dataclass(frozen=True)
class TuningConfig(Config):
    """Which weights of a published encoder are trained, and at which rates."""

    dropout: float | None = option(
        None, "Dropout of the encoder, attention included. [the checkpoint's]", low=0.0, high=0.99
    )
    head_rate: float = option(1.0, "Factor of the learning rate of the new head.", low=0.0)
    freeze_layers: int = option(0, "Freeze the embeddings and so many layers, from the lowest on.", low=0)
    layer_decay: float = option(1.0, "Factor of the learning rate from each layer to the one below.", low=0.0, high=1.0)
    lora_rank: int = option(0, "Train low-rank updates of the dense kernels instead of the encoder; 0: no.", low=0)
    mlm_epochs: float = option(
        0.0, "Epochs of masked language modelling on the training texts before fine-tuning.", low=0.0
    )
    mlm_learning_rate: float = option(5e-5, "Peak learning rate of masked language modelling.", low=0.0)

    def check(self) -> None:
        if self.lora_rank and (self.freeze_layers or self.layer_decay != 1.0):
            raise UserError("--lora_rank keeps the whole encoder as it is: leave out --freeze_layers and --layer_decay")
        if self.mlm_epochs and self.freeze_layers:
            raise UserError("--mlm_epochs trains every layer: leave out --freeze_layers")


@dataclasses.dataclass(frozen=True)
class TextTaskConfig(TaskConfig):
    """The choices for training any text classifier."""

    data: DataConfig = nested(DataConfig)
    objective: ObjectiveConfig = nested(ObjectiveConfig)
    training: TrainingConfig = nested(TrainingConfig, select="auto")
    init_from: Path | None = option(None, "Folder of a finished run whose words and weights this one starts from.")
    report: bool = option(
        True,
        "Write report.html, one page with all figures and pictures, errors, explained texts and t-SNE.",
        affects_result=False,
    )
    tsne: int = option(1000, "Test texts in the t-SNE pictures of the pooled vectors; 0: no picture.", low=0)
    interactive: bool = option(
        False,
        "The 3-D t-SNE picture to be turned by hand too, in report.html and tsne.html (needs plotly).",
        affects_result=False,
    )
    suspects: int = option(
        0,
        "Training rows in suspects.csv, those most likely mislabelled by models that have not seen them; 0: off.",
        low=0,
    )

    def check(self) -> None:
        if self.data.multi_label and self.objective.logit_adjustment:
            raise UserError(
                f"--logit_adjustment={self.objective.logit_adjustment}: with --multi_label every class has a threshold "
                "of its own, fitted on validation, which does the same; leave it out"
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
        "Write RUN/encoder for --encoder and transformers, and with the pooling of its family (pooler, pre_classifier, "
        "dense_gelu) the whole classifier, RUN/classifier.",
    )


@dataclasses.dataclass(frozen=True)
class EmbeddingConfig(TaskConfig):
    """Hidden states of a frozen encoder, written to disk; ``text_cls.features.embed_texts``."""

    data: DataConfig = nested(DataConfig, join_fields="space")
    encoder: FrozenEncoderConfig = nested(FrozenEncoderConfig)
    layers: tuple[int, ...] = option((-1,), "Hidden states: 0 is the embeddings', 1 the first layer's; -1 the last.")
    pooling: str = option("cls", "How the pieces' vectors become the text's.", choices="text_cls.pooling:POOLINGS")
    dtype: str = option("float32", "Number format of the arrays.", choices=("float32", "float16"))
