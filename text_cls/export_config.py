"""Every choice of an export."""

import dataclasses
from pathlib import Path

from files.errors import UserError
from text_cls.config import DataConfig
from training.options import Config, choices_of, option


@dataclasses.dataclass(frozen=True)
class ExportConfig(Config):
    """A trained classifier as one artefact that needs TensorFlow alone; ``text_cls.exporting.export_text``."""

    out: Path | None = option(None, "Folder of the export; an earlier export there is replaced.")
    onnx: bool = option(True, "Write the network as ONNX too; needs tf2onnx and onnxruntime.")
    compare: int = option(
        1000, "Number of the run's validation and test texts on which the export is compared with the model.", low=0
    )
    join_fields: str = option(
        "", "How the fields of a text are joined, for a published classifier that does not say it: sep, space, pair."
    )
    devices: str = option("cpu", "Where the model runs that the export is compared with: auto, cpu or gpu.")
    cache_dir: Path | None = option(None, "Downloads. [$TRIPTYCH_CACHE or ~/.cache/triptych]", affects_result=False)

    def check(self) -> None:
        if self.join_fields and self.join_fields not in choices_of(DataConfig, "join_fields"):
            raise UserError(f"--join_fields={self.join_fields} is not known: use sep, space or pair")
