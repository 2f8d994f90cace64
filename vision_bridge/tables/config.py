"""Every choice of a table: its file, its columns, its splits. Imports no Keras."""

import codecs
import dataclasses
from pathlib import Path

from files.errors import UserError
from training.config import TrainingConfig
from training.options import Config, nested, option, overrides_of
from vision_bridge.config import PRESETS, BridgeConfig
from vision_bridge.head_config import HeadConfig

DATASETS = ("own", "breast_cancer", "wine", "iris", "digits", "diabetes")
TASKS = ("auto", "classification", "regression")
MISSING = ("error", "mean", "indicator")
DELIMITERS = {"comma": ",", "tab": "\t", "semicolon": ";", "pipe": "|"}


@dataclasses.dataclass(frozen=True)
class TabularConfig(Config):
    """How a table is read, what its columns mean, and how its rows are split."""

    dataset: str = option(
        "own", "own: the file of --data_path; or one of scikit-learn's data sets, which need no file.", choices=DATASETS
    )
    data_path: Path | None = option(None, "own: csv or tsv (also .gz, .bz2, .xz, .zst), npz, npy or parquet file.")
    validation_path: Path | None = option(None, "own: file of the validation rows, in place of --validation_share.")
    test_path: Path | None = option(None, "own: file of the test rows, in place of --test_share.")
    label_field: str = option(
        "", "Column of the label; npz: name of its array; npy: its number, from 0. [label; npz: y; npy: the last]"
    )
    group_field: str = option(
        "", "Column of groups, such as the patient's number: all rows of a group are in one split; not a feature."
    )
    ignore_fields: tuple[str, ...] = option((), "Columns that are not used as features.")
    categorical_fields: tuple[str, ...] = option(
        (), "Columns of numbers that are categories, such as postcodes; columns of texts need not be listed."
    )
    column_groups: tuple[str, ...] = option(
        (),
        "Patterns of column names, such as mean*,worst*, for --channels=groups and pictures: the columns that match a "
        "pattern are a group; a column belongs to the first pattern that it matches.",
    )
    task: str = option(
        "auto", "Whether the label is a class or a quantity; auto: by the column, or an error.", choices=TASKS
    )
    missing: str = option(
        "error",
        "Missing values: an error; the training rows' mean; indicator: the mean, and a column 'FIELD is missing'.",
        choices=MISSING,
    )
    missing_values: tuple[str, ...] = option(
        ("NA", "N/A", "n/a", "#N/A", "#NA", "<NA>", "NaN", "nan", "-NaN", "-nan", "null", "NULL", "None", "?"),
        "Texts that mean a missing value; an empty cell always does.",
    )
    max_categories: int = option(
        50, "Largest number of different texts in a column of texts, which becomes a 0/1 column per text.", low=2
    )
    columns: tuple[str, ...] = option((), "csv: names of the columns of a file without a header row.")
    delimiter: str = option("auto", "csv: separator of the columns; auto: found in the first rows.",
                            choices=("auto", *DELIMITERS))  # fmt: skip
    decimal: str = option("point", "csv: the mark before a number's decimals.", choices=("point", "comma"))
    encoding: str = option("utf-8", "csv: encoding of the file, such as cp1252; a byte order mark overrides it.")
    max_megabytes: int = option(2000, "Largest table to read, in MB after unpacking.", low=1)
    test_share: float = option(0.2, "Share of all rows (or groups) for the test, without --test_path.", low=0.0)
    validation_share: float = option(
        0.2, "Share of the other rows (or groups) for validation, without --validation_path.", low=0.0
    )

    def check(self) -> None:
        for name in ("test_share", "validation_share"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"--{name}={getattr(self, name)} must lie between 0 and 1")
        for name in ("ignore_fields", "categorical_fields"):
            own = {self.label_field, self.group_field} - {""}
            for field in getattr(self, name):
                if field in own:
                    raise UserError(f"--{name}: {field!r} is the column of the label or of the groups; leave it out")
        both = set(self.ignore_fields) & set(self.categorical_fields)
        if both:
            raise UserError(f"--categorical_fields: {min(both)!r} is in --ignore_fields too; choose one")
        if self.group_field and self.group_field == self.label_field:
            raise UserError(f"--group_field={self.group_field} is the label too: a group needs a column of its own")
        _check_encoding(self.encoding)

    def as_written(self, label: str) -> frozenset[str]:
        """Columns whose values stay texts in every file, numbers too; ``label`` is the name of the label's."""
        return frozenset({label, self.group_field, *self.categorical_fields} - {""})

    def check_used(self) -> None:
        super().check_used()
        for name in ("test", "validation"):
            share, usual = getattr(self, f"{name}_share"), getattr(type(self), f"{name}_share")
            if getattr(self, f"{name}_path") and share != usual:
                raise UserError(
                    f"--{name}_share={share} with --{name}_path, which has these rows: leave one of them out"
                )
        if self.dataset == "own" and self.data_path is None:
            raise UserError(f"--data_path is needed, or --dataset with one of {', '.join(DATASETS[1:])}")
        if self.dataset != "own":
            for name in ("data_path", "validation_path", "test_path", "label_field", "group_field", "columns"):
                if getattr(self, name):
                    raise UserError(f"--{name} with --dataset={self.dataset}, which is built in: leave one of them out")


@dataclasses.dataclass(frozen=True)
class TableBridgeConfig(BridgeConfig):
    """The bridge with the defaults of tables: no download, and choices for few rows.

    The head is a linear model on averages over 3×3 squares of the maps. The loss selects its weights: with a hundred
    validation rows, many epochs have the same accuracy.
    """

    weights: str = option(
        "random:0", "Weights of the extractor: random or random:SEED, a file; empty: the published ones, downloaded."
    )
    map_pool: int = option(3, "Average the maps over squares of this side, to save disk space and time.", low=1)
    head: Config = nested(
        overrides_of(HeadConfig), prefix="head_", filters=(), dense=(), pooled=0, map_norm=True, map_dropout=0.5
    )
    training: TrainingConfig = nested(
        TrainingConfig, batch_size=32, num_epochs=30.0, learning_rate=1e-4, schedule="constant", warmup=0.0,
        weight_decay=0.0, shards=1, select="loss",
    )  # fmt: skip

    def check_used(self) -> None:
        super().check_used()
        if self.chosen.last_layer != PRESETS[self.preset].last_layer:
            raise UserError("--last_layer is for encoders of texts, and a table has none: leave it out")


def _check_encoding(name: str) -> None:
    """Raises UserError for a name that is no encoding of texts."""
    try:
        codecs.lookup(name)
        "a".encode(name)
    except (LookupError, UnicodeError, ValueError) as error:
        raise UserError(f"--encoding={name} is not known: use utf-8, cp1252, latin-1, utf-16, …") from error
