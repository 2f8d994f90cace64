"""Every choice of an export."""

import dataclasses
from pathlib import Path

from files.errors import UserError
from text_cls.config import DataConfig
from training.options import Config, choices_of, option


@dataclasses.dataclass(frozen=True)
class ExportConfig(Config):
    """A trained classifier as one artefact that needs TensorFlow alone; ``text_cls.exporting.export_text``."""

    out: Path | None = option(None, "Folder of the artefact; made, or put in the place of an earlier export.")
    onnx: bool = option(True, "Write the network as ONNX too; needs tf2onnx and onnxruntime.")
    compare: int = option(
        1000, "Texts of the run's own validation and test rows on which it is compared with evaluation.", low=0
    )
    join_fields: str = option(
        "", "How fields are put together, of a published classifier that does not say: sep, space or pair."
    )
    devices: str = option("cpu", "Where evaluation runs that it is compared with: auto, cpu or gpu.")
    cache_dir: Path | None = option(None, "Downloads. [$TRIPTYCH_CACHE or ~/.cache/triptych]", affects_result=False)

    def check(self) -> None:
        if self.join_fields and self.join_fields not in choices_of(DataConfig, "join_fields"):
            raise UserError(f"--join_fields={self.join_fields} is not known: use sep, space or pair")
