"""The choices for classifying texts with a trained model."""

import dataclasses
from pathlib import Path
from typing import Any

from files.errors import UserError
from text_cls.config import DataConfig
from training.options import Config, choices_of, option

LINES = "lines"
_OF_FILES = ("text_fields", "id_field", "columns", "delimiter", "quoting", "encoding", "keep_rows", "skip_bad_rows",
             "max_megabytes")  # fmt: skip


def _as_in_training(name: str) -> Any:
    """The same choice as in training, under the same name."""
    field = DataConfig.__dataclass_fields__[name]
    return dataclasses.field(default=field.default, metadata=field.metadata)


@dataclasses.dataclass(frozen=True)
class PredictionConfig(Config):
    """Texts to classify with a trained run; ``text_cls.prediction.predict``."""

    dataset: str = option(LINES, "Format of the texts.", choices="text_cls.inputs:FORMS")
    input: str = option("", "lines: file with one text per line (compressed or not), or a pipe; '-': standard input.")
    data_path: Path | None = option(None, "csv, jsonl: the file; folder: of .txt files, in class folders or not.")
    text_fields: tuple[str, ...] = option(
        (),
        "csv, jsonl: columns of the text, in the order of training; article.title is title inside article. [those that "
        "the model was trained on, or text]",
    )
    id_field: str = _as_in_training("id_field")
    columns: tuple[str, ...] = _as_in_training("columns")
    delimiter: str = _as_in_training("delimiter")
    quoting: str = _as_in_training("quoting")
    encoding: str = _as_in_training("encoding")
    keep_rows: str = _as_in_training("keep_rows")
    skip_bad_rows: bool = option(
        False, "For unusable rows and undecodable lines, write the reason in place of an answer; otherwise stop there."
    )
    max_megabytes: int = _as_in_training("max_megabytes")
    separator: str = option("", "lines: separator of the fields of a text, such as headline and description.")
    join_fields: str = option(
        "", "How the fields of a text are joined, for a published classifier that does not say it: sep, space, pair."
    )
    explain: bool = option(
        False,
        "Write what each word adds to the logit of each listed class (integrated gradients). csv: the ten strongest "
        "words, as word:+0.52; jsonl: all words, as [word, 0.52].",
    )
    top: int = option(1, "Classes to list for each text, the likeliest first.", low=1)
    format: str = option("csv", "Format of the answers.", choices="text_cls.answers:FORMATS")
    out: Path | None = option(None, "File of the answers, written whole or not at all. [standard output]")
    devices: str = option("cpu", "auto, cpu or gpu.")

    def check(self) -> None:
        self.as_data()
        if self.input and self.data_path:
            raise UserError(f"--input={self.input} and --data_path={self.data_path}: use one of them")
        if self.data_path and self.dataset == LINES:
            raise UserError(
                f"--data_path={self.data_path} is not used by --dataset={LINES}: set --dataset=csv, jsonl or folder; a "
                "file with one text per line is --input"
            )
        if self.join_fields and self.join_fields not in choices_of(DataConfig, "join_fields"):
            raise UserError(f"--join_fields={self.join_fields} is not known: use sep, space or pair")
        if self.separator and self.dataset != LINES:
            raise UserError(
                f"--separator={self.separator!r} is not used by --dataset={self.dataset}; name the fields of a text by "
                "--text_fields"
            )

    @property
    def path(self) -> Path | None:
        """The file or folder of the texts; None for standard input, or for texts as arguments."""
        return self.data_path or (Path(self.input).expanduser() if self.input not in ("", "-") else None)

    def as_data(self) -> DataConfig:
        """The choices that training has too, as its configuration; raises UserError for the same mistakes."""
        form = "csv" if self.dataset == LINES else self.dataset
        chosen = {name: getattr(self, name) for name in _OF_FILES if name != "text_fields" or self.text_fields}
        return DataConfig(form, self.path, **chosen)
