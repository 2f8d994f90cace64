"""What is between pixels and maps, answers on disk, and tests of two classifiers on the same rows."""

from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.stats import binomtest

from files.errors import UserError
from vision_bridge import plots
from vision_bridge.answers import ANSWERS, compare, read_answers, vote, write_answers
from vision_bridge.config import Choices, ProbingConfig
from vision_bridge.frozen.backbones import build_backbone
from vision_bridge.frozen.extractors import EXTRACTORS
from vision_bridge.goals import Classification
from vision_bridge.probing import convolution_inputs, named
from vision_bridge.report import paired

CLASSES = ("a", 'b,"c"', "d\r\ne", "")


def test_what_the_convolutions_of_vgg16_see() -> None:
    model = build_backbone("vgg16", 20, 20)
    found = convolution_inputs(model)
    assert list(found) == [f"into features.{k}" for k in (2, 5, 7, 10)]  # the first sees the image itself
    shapes = [tensor.shape[1:] for tensor in found.values()]
    assert shapes == [(20, 20, 64), (10, 10, 64), (10, 10, 128), (5, 5, 128)]
    image = np.random.default_rng(0).normal(size=(1, 20, 20, 3)).astype(np.float32)
    first = keras.ops.convert_to_numpy(keras.Model(model.input, found["into features.2"])(image))
    by_hand = keras.ops.relu(keras.ops.conv(image, model.get_layer("features.0").kernel, padding="same"))
    bias = keras.ops.convert_to_numpy(model.get_layer("features.0").bias)
    assert not bias.any()
    np.testing.assert_allclose(first, by_hand, atol=1e-5)


@pytest.mark.parametrize("name", EXTRACTORS)
def test_every_convolution_of_every_extractor_is_seen_once(name: str) -> None:
    model = build_backbone(name, 100, 100)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    convolutions += [layer for layer in model.layers if isinstance(layer, keras.layers.DepthwiseConv2D)]
    found = convolution_inputs(model)
    assert {f"into {layer.name}" for layer in convolutions} >= set(found)
    assert len(found) == len({id(tensor) for tensor in found.values()}) <= len(convolutions)
    sides = [tensor.shape[1] for tensor in found.values()]
    assert sides == sorted(sides, reverse=True)  # in the order of the network, and none of them padded


def test_answers_on_disk_are_those_that_were_given(tmp_path: Path) -> None:
    labels, answers = np.array([0, 1, 2, 3, 1]), np.array([0, 2, 2, 1, 3])
    write_answers(tmp_path, labels, answers, CLASSES)
    np.testing.assert_array_equal(read_answers(tmp_path, labels, CLASSES), answers)
    with pytest.raises(UserError, match="not the answers to these 5 test rows"):
        read_answers(tmp_path, labels[::-1], CLASSES)
    for text in ("", "row,label,predicted\n0,a\n", 'row,label,predicted\n0,"a","x"\n', "\0", 'row\n"'):
        (tmp_path / ANSWERS).write_text(text)
        with pytest.raises(UserError, match=r"remove .* to have it trained again"):
            read_answers(tmp_path, labels, CLASSES)
    (tmp_path / ANSWERS).unlink()
    with pytest.raises(UserError, match="no such file"):
        read_answers(tmp_path, labels, CLASSES)
    write_answers(tmp_path, np.array([0.5, 2.0]), np.array([0.25, 1e-9]))
    assert (tmp_path / ANSWERS).read_text() == '"row","label","predicted"\n0,0.5,0.25\n1,2.0,1e-09\n'


def test_votes_by_hand() -> None:
    networks = [np.array(answers) for answers in ([0, 1, 2, 2], [0, 2, 1, 0], [1, 2, 0, 1])]
    assert vote(networks, 3).tolist() == [0, 2, 2, 2]  # the majority; of three ties, the first network's
    assert vote(networks[1:], 3).tolist() == [0, 2, 1, 0]


def test_mcnemar_of_two_rows_of_a_table() -> None:
    rng = np.random.default_rng(0)
    right = {"first": rng.random(400) < 0.8, "second": rng.random(400) < 0.7, "third": rng.random(400) < 0.9}
    pair = compare("first", "second", right)
    a, b = right["first"], right["second"]
    assert pair.p == pytest.approx(binomtest(int((a & ~b).sum()), int((a != b).sum())).pvalue)
    assert pair.difference == pytest.approx(a.mean() - b.mean())
    assert compare("first", "first", right)[2:] == (0.0, 0, 0, 1.0)
    text = paired([pair, compare("first", "third", right), compare("second", "third", right)])
    assert text.splitlines()[2] == "|  | first | second |"
    assert text.splitlines()[4].startswith(f"| second | {b.mean() - a.mean():+.4f} (p ")
    assert text.splitlines()[5].count("(p <") + text.splitlines()[5].count("(p =") == 2


def test_the_picture_of_stages_and_the_names_of_its_figures(tmp_path: Path) -> None:
    found = {"features": {"linear": 0.8, "mlp": 0.82}, "into features.2": {"linear": 0.7}, "maps": {"linear": 0.6}}
    plots.stages(found, Classification(("a", "b")), 0.65, 100, tmp_path / "stages.png")
    assert (tmp_path / "stages.png").stat().st_size > 5000
    assert named(found, {"mean": 1.0}) == {
        "probe_mean": 1.0, "probe_linear_on_features": 0.8, "probe_mlp_on_features": 0.82,
        "probe_linear_on_into_features.2": 0.7, "probe_linear_on_maps": 0.6,
    }  # fmt: skip


def test_layers_are_probed_only_where_images_do_not_depend_on_one_another() -> None:
    ProbingConfig(probe_layers=True).check_stages(Choices())
    for chosen in (Choices(z_norm="batch"), Choices(bn_mode="batch")):
        with pytest.raises(UserError, match="do not depend on the batch"):
            ProbingConfig(probe_layers=True).check_stages(chosen)
        ProbingConfig().check_stages(chosen)
    with pytest.raises(UserError, match="--probe_layers with --noprobes"):
        ProbingConfig(probes=False, probe_layers=True).check_stages(Choices())
