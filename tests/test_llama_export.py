"""A merged export, as transformers 4.53.3 answers from it (tests/golden/make_llama_export.py)."""

from pathlib import Path

import numpy as np
from keras import ops

from tests.llama_export import GOLDEN, asked, write_export
from vision_bridge.llama.checkpoint import load_checkpoint, read_config
from vision_bridge.llama.model import LlamaVision, Pictures


def test_transformers_answers_as_we_do_where_pictures_come_first(tmp_path: Path) -> None:
    write_export(tmp_path)
    theirs, changed = np.load(GOLDEN / "export.npz"), []
    for folder in (tmp_path, GOLDEN):
        model = LlamaVision(read_config(folder))
        load_checkpoint(folder, model)
        for number, row in enumerate(asked()):
            pixels = row.pixel_values.transpose(0, 1, 2, 4, 5, 3)
            pictures = Pictures(*map(ops.convert_to_tensor, (pixels, row.aspect_ratio_ids, row.aspect_ratio_mask)))
            tokens, tiles = (ops.convert_to_tensor(part.astype(np.int32)) for part in (row[0], row[4]))
            assert row[4].any(axis=(2, 3)).all()  # every token sees a picture
            ours = ops.convert_to_numpy(model(tokens, ops.ones_like(tokens), model.encode(pictures), tiles))[0]
            changed.append(float(np.abs(ours - theirs[f"row{number}"]).max()))
    print("differences of the export, and of the checkpoint before its updates:", changed)
    assert max(changed[:2]) < 1e-5 < 0.1 < min(changed[2:])
