"""A user's own extractors: Keras models, SavedModels and ONNX files, such as CLIP's and DINO's image encoders.

A model's file says the size and the order of an image's axes; it does not say the range of pixels, so a flag must.
``B`` batch, ``H, W, C`` an image, ``D`` features.
"""

import hashlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from diffusion.data.resizing import resize, resize_bicubic, resize_on_host
from diffusion.fid.extractor import Extractor, Outputs, with_channels, with_channels_on_host
from diffusion.fid.feature_config import PROTOCOLS, RESIZES, SCALES, FeatureConfig
from files.documents import file_sha256
from files.errors import UserError, line_of
from files.tensors import check_finite
from training.named_arrays import fingerprint


def _scaled(mean: tuple[float, ...], deviation: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(scale, shift) with which 0 … 255 becomes (x/255 − mean)/deviation."""
    m, d = np.asarray(mean), np.asarray(deviation)
    return (1.0 / (255.0 * d)).astype(np.float32), (-m / d).astype(np.float32)


# Names of --feature_scale → factor and summand for pixels of 0 … 255.
SCALED: dict[str, tuple[np.ndarray, np.ndarray] | None] = {
    "0_255": None,
    "0_1": _scaled((0.0,), (1.0,)),
    "-1_1": _scaled((0.5,), (0.5,)),
    "imagenet": _scaled((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": _scaled((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


class ModelInput(NamedTuple):
    """The input of a model.

    Attributes:
        height, width: of an image; None: any.
        channels: 1 or 3.
        channels_first: whether channels come before height and width.
        dtype: of the numbers.
        batch: images in a batch; None: any.
    """

    height: int | None
    width: int | None
    channels: int
    channels_first: bool
    dtype: str = "float32"
    batch: int | None = None


class _Model(NamedTuple):
    """A model that was read.

    Attributes:
        input: its input.
        call: a batch of inputs → [B, D].
        width: D.
        content_hash: of its layers and weights.
        network: a Keras model, or None.
        in_numpy: see ``Extractor``.
    """

    input: ModelInput
    call: Callable[[Any], Any]
    width: int
    content_hash: str
    network: Any = None
    in_numpy: bool = False


def own_extractor(config: FeatureConfig) -> Extractor:
    """The extractor at ``config.features``.

    Raises:
        UserError: there is no model, it cannot be read, or its output is not one vector for each image.
    """
    path = Path(config.features).expanduser()
    where = f"--features={path}"
    if path.suffix in (".keras", ".onnx"):
        if not path.is_file():
            raise UserError(f"{where}: no such file")
        read = _read_keras if path.suffix == ".keras" else _read_onnx
    elif path.is_dir() and (path / "saved_model.pb").is_file():
        read = _read_saved_model
    else:
        raise UserError(
            f"--features={config.features!r} is not known: use --protocol with one of {', '.join(PROTOCOLS)}, or the "
            "path of a .keras model, a SavedModel's folder or an .onnx file"
        )
    return _extractor(config, path, read(where, path))


def _extractor(config: FeatureConfig, path: Path, model: _Model) -> Extractor:
    about, usual = model.input, (SCALES[0], RESIZES[0])
    if about.dtype == "uint8" and config.feature_scale != SCALES[0]:
        raise UserError(f"--feature_scale={config.feature_scale}: {path} takes whole numbers of 0 to 255")
    if about.channels == 1 and config.feature_scale in ("imagenet", "clip"):
        raise UserError(f"--feature_scale={config.feature_scale}: {path} takes images of one channel")
    how = (config.feature_scale, config.feature_resize)
    bicubic, fixed = config.feature_resize == "bicubic", bool(about.height and about.width)
    if bicubic and not fixed:
        raise UserError(f"--feature_resize=bicubic: {path} takes images of any size, which are not resized")

    def on_host(image: np.ndarray) -> np.ndarray:
        image = with_channels_on_host(image, about.channels)
        return _resized(image, about.height or image.shape[0], about.width or image.shape[1], bicubic)

    def call(images: Any) -> Outputs:
        x = with_channels(images, about.channels) if not model.in_numpy else images
        if not model.in_numpy:
            x = resize(x, about.height or x.shape[1], about.width or x.shape[2], half_pixel=True)
        return Outputs(model.call(_as_input(x, about, config.feature_scale, model.in_numpy)), None)

    resize_name = "bicubic, antialiased" if bicubic else "bilinear"
    return Extractor(
        f"model:{path.name}" + (f" of {how[0]}, {how[1]}" if how != usual else ""),
        model.content_hash if how == usual else hashlib.sha256(repr((model.content_hash, how)).encode()).hexdigest(),
        f"{resize_name} to {about.height}×{about.width}" + ("" if bicubic else ", half pixel"),
        call,
        model.width,
        model=model.network,
        on_host=on_host if fixed or model.in_numpy else None,
        always_on_host=bicubic or model.in_numpy,
        in_numpy=model.in_numpy,
    )


def _resized(image: np.ndarray, height: int, width: int, bicubic: bool) -> np.ndarray:
    if bicubic:
        return resize_bicubic(image, height, width)
    return resize_on_host(image, height, width, half_pixel=True)


def _as_input(x: Any, about: ModelInput, scale: str, in_numpy: bool) -> Any:
    """Float images [B, H, W, C] of 0 … 255 → the model's input."""
    if (factors := SCALED[scale]) is not None:
        x = x * factors[0] + factors[1]
    if about.channels_first:
        x = np.transpose(x, (0, 3, 1, 2)) if in_numpy else ops.transpose(x, (0, 3, 1, 2))
    if about.dtype == "uint8":
        x = np.rint(x) if in_numpy else ops.round(x)
    return np.ascontiguousarray(x, about.dtype) if in_numpy else ops.cast(x, about.dtype)


def input_of(where: str, shape: tuple, dtype: str) -> ModelInput:
    """The input of a model, from its shape; names and −1 mean dimensions of any size.

    Raises:
        UserError: the input is not a batch of images.
    """
    sizes = [size if isinstance(size, int) and size > 0 else None for size in shape]
    if len(sizes) != 4 or not {sizes[1], sizes[3]} & {1, 3} or dtype not in ("float32", "uint8"):
        raise UserError(
            f"{where}: it takes {dtype} {list(shape)}; an extractor takes float32 or uint8 images "
            "[B, H, W, 1 or 3] or [B, 1 or 3, H, W]"
        )
    batch, *image = sizes
    first = image[2] not in (1, 3)
    channels, height, width = image if first else (image[2], image[0], image[1])
    assert channels is not None
    return ModelInput(height, width, channels, first, dtype, batch)


def _read_keras(where: str, path: Path) -> _Model:
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises ValueError, TypeError, KeyError, OSError and zip errors
        raise UserError(f"{where}: Keras cannot load it ({str(error).splitlines()[0]})") from error
    shape, out = model.input_shape, model.output_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or not isinstance(out, tuple) or len(out) != 2:
        raise UserError(f"{where}: a model from [B, H, W, C] to [B, D] is needed, not {shape} to {out}")
    check_weights(where, model)
    about = re.sub(r'"shared_object_id": \d+', "", model.to_json())  # a memory address of this process
    _, height, width, channels = shape
    takes = ModelInput(height, width, channels, channels_first=False)
    return _Model(takes, partial(model, training=False), out[1], fingerprint(model.variables, about), model)


def check_weights(where: str, model: keras.Model) -> None:
    """Raises UserError for weights that are not finite, also after batch norms of negative variance were folded in."""
    check_finite(where, {variable.path: np.asarray(ops.convert_to_numpy(variable)) for variable in model.variables})


def _read_saved_model(where: str, path: Path) -> _Model:
    if keras.backend.backend() != "tensorflow":
        raise UserError(f"{where}: a SavedModel is computed by TensorFlow; set KERAS_BACKEND=tensorflow")
    try:
        layer = keras.layers.TFSMLayer(str(path), call_endpoint="serving_default", trainable=False)
        signature = layer.call_endpoint_fn
        takes = list(signature.structured_input_signature[1].values())
        outputs = signature.structured_outputs
        if len(takes) != 1:
            raise ValueError(f"it takes {len(takes)} inputs")
    except Exception as error:  # TensorFlow raises errors of many kinds
        raise UserError(f"{where}: TensorFlow cannot load it as a model ({line_of(error)})") from error
    about = input_of(where, tuple(takes[0].shape), takes[0].dtype.name)
    name = _one_vector(where, {name: tuple(spec.shape) for name, spec in outputs.items()})
    return _Model(about, lambda x: layer(x)[name], outputs[name].shape[-1], _content_hash(path), layer)


def _read_onnx(where: str, path: Path) -> _Model:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{where} needs onnxruntime, which is not installed: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=onnxruntime.get_available_providers())
        takes, outputs = session.get_inputs(), session.get_outputs()
        if len(takes) != 1:
            raise ValueError(f"it takes {len(takes)} inputs")
    except Exception as error:  # onnxruntime raises errors of its own
        raise UserError(f"{where}: onnxruntime cannot load it as a model ({line_of(error)})") from error
    kind = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}.get(takes[0].type, takes[0].type)
    about = input_of(where, tuple(takes[0].shape), kind)
    name = _one_vector(where, {output.name: tuple(output.shape) for output in outputs})
    (width,) = (output.shape[-1] for output in outputs if output.name == name)

    def call(images: np.ndarray) -> np.ndarray:
        step = about.batch or len(images)
        parts = [images[start : start + step] for start in range(0, len(images), step)]
        filled = [np.concatenate([part, np.repeat(part[-1:], step - len(part), axis=0)]) for part in parts]
        return np.concatenate([session.run([name], {takes[0].name: part})[0] for part in filled])[: len(images)]

    return _Model(about, call, width, _content_hash(path), in_numpy=True)


def _one_vector(where: str, shapes: dict[str, tuple]) -> str:
    """The name of the single output [B, D]."""
    vectors = [name for name, shape in shapes.items() if len(shape) == 2 and isinstance(shape[1], int) and shape[1] > 0]
    if len(vectors) != 1:
        found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise UserError(f"{where}: it returns {found}; an extractor returns one array of vectors [B, D]")
    return vectors[0]


def _content_hash(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder."""
    if path.is_file():
        return file_sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return hashlib.sha256(
        repr([(str(file.relative_to(path)), file_sha256(file)) for file in files]).encode()
    ).hexdigest()
