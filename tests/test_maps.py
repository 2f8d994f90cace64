"""Maps that float16 cannot hold."""

from pathlib import Path

import numpy as np
import pytest
from keras import ops

from files.arrays import growing_array
from files.errors import UserError
from training.backends import Placement
from vision_bridge.frozen.maps import fill_maps, make_stream
from vision_bridge.frozen.storage import MapStatistics, float16


@pytest.mark.parametrize("value", [65_600.0, -70_000.0, np.nan])
def test_maps_that_float16_cannot_hold_are_not_kept(value: float, tmp_path: Path, one_replica: Placement) -> None:
    images = np.ones((6, 4, 4), np.float32)
    packing = float16(MapStatistics.neutral(1))
    stream = make_stream(lambda x: ops.expand_dims(x, -1) * 65_000.0, packing, one_replica)
    with growing_array(tmp_path / "maps.npy", (6, 4, 4, 1), "float16", {}) as file:
        fill_maps(stream, images, file, 2)
        np.testing.assert_array_equal(file.read_only(), np.full((6, 4, 4, 1), 65_000, np.float16))
    images[3, 2, 1] = value / 65_000.0
    with growing_array(tmp_path / "others.npy", (6, 4, 4, 1), "float16", {}) as file:
        with pytest.raises(UserError, match="the most that float16 holds"):
            fill_maps(stream, images, file, 2)
        assert file.done <= 2  # the second batch is not in the file
