"""A trained run as a model that answers questions about pictures."""

import codecs
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from keras import ops
from PIL import Image

from files.artefacts import artefact_digest, read_artefact, write_artefact
from files.errors import UserError
from files.tensors import read_tensors, write_tensors
from training.backends import Placement
from training.named_arrays import fingerprint
from vision_bridge.llama.checkpoint import load_checkpoint, read_config, save_checkpoint
from vision_bridge.llama.digits import byte_tokeniser
from vision_bridge.llama.generation import Choose, Sight, generate, greedy
from vision_bridge.llama.model import LlamaVision, Pictures
from vision_bridge.llama.objective import add_lora, lora_layers
from vision_bridge.llama.pictures import seen_tiles, tile
from vision_bridge.llama.quantisation import quantise
from vision_bridge.llama.tokeniser import Tokeniser, Turn, check_tokens, read_tokeniser

UPDATES = "lora.safetensors"
_UNFINISHED = "; is the run finished?"


def model_digest(run_dir: Path) -> str:
    """SHA-256 of a finished run's model.

    Raises:
        UserError: the run is not finished.
    """
    return artefact_digest(run_dir / "model", _UNFINISHED)


class Base(NamedTuple):
    """The published checkpoint that low-rank updates belong to.

    Attributes:
        folder: its folder during training.
        fingerprint: of its weights.
        variant: see ``LlamaConfig.as_in``.
        rank, modules: of the updates.
        quantised: the weights' format after the fingerprint is taken; see ``quantise``.
    """

    folder: str
    fingerprint: str
    variant: str
    rank: int
    modules: str
    quantised: str = "none"


class Predictor(NamedTuple):
    """A model with its tokens.

    Attributes:
        model: with its weights.
        tokeniser: text ↔ tokens.
        base: the checkpoint that the updates change; None: the run holds all weights.
    """

    model: LlamaVision
    tokeniser: Tokeniser
    base: Base | None = None

    def save(self, folder: Path) -> None:
        """Writes the low-rank updates and their base; without a base, the whole model in the published form."""
        if self.base is None:
            whole = folder / "checkpoint"
            files = [f"checkpoint/{name}" for name in save_checkpoint(whole, self.model)]
            write_artefact(folder, {"tokeniser": "bytes"}, files)
            return
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / UPDATES, _updates(self.model, self.base.modules), {})
        write_artefact(folder, {"base": self.base._asdict()}, [UPDATES])

    @classmethod
    def of_run(
        cls, run_dir: Path | str, placement: Placement, checkpoint: Path | None = None, exact: bool = False
    ) -> "Predictor":
        """The model of a finished run.

        Args:
            run_dir: its folder.
            placement: where it runs.
            checkpoint: the published checkpoint's folder, if it was moved.
            exact: whether to leave published weights unquantised, even if they were quantised in training.

        Raises:
            UserError: no finished run, or a checkpoint with other weights than the run's.
        """
        run_dir = Path(run_dir).expanduser()
        folder = run_dir / "model"
        about = read_artefact(folder, _UNFINISHED)
        if "base" not in about:
            with placement.scope():
                model = LlamaVision(read_config(folder / "checkpoint"))
            load_checkpoint(folder / "checkpoint", model)
            return cls(model, byte_tokeniser())
        base = Base(**about["base"])
        published = checkpoint or Path(base.folder)
        sizes = read_config(published).as_in(base.variant)
        with placement.scope():
            model = LlamaVision(sizes)
            load_checkpoint(published, model)
            if fingerprint(model.variables, "llama") != base.fingerprint:
                raise UserError(f"{published}: other weights than {run_dir} was trained on; name its --checkpoint")
            if not exact:
                quantise(model, base.quantised)
            add_lora(model, base.rank, base.modules)
        tensors, _ = read_tensors(folder / UPDATES)
        for name, variable in _variables(model, base.modules).items():
            variable.assign(tensors[name])
        tokeniser = read_tokeniser(published)
        check_tokens(published, tokeniser.special.values(), tokeniser.ends, sizes.text.vocabulary)
        return cls(model, tokeniser, base)

    def prompt(self, text: str, pictures: int) -> list[int]:
        """Tokens of a question about some pictures, up to the start of the answer."""
        return self.tokeniser.prompt([Turn("user", text, pictures)])

    def answers(
        self,
        questions: Sequence[tuple[Sequence[Image.Image], str]],
        most: int = 256,
        choose: Choose = greedy,
        step: Callable | None = None,
    ) -> Iterator[list[str]]:
        """Yields, for each new token, the text that it adds to each answer.

        Args:
            questions: pictures and prompt of each.
            most: most tokens of an answer.
            choose, step: see ``generate``.
        """
        prompts = [self.prompt(prompt, len(pictures)) for pictures, prompt in questions]
        decoders = [codecs.getincrementaldecoder("utf-8")(errors="replace") for _ in questions]
        sight = self._sight(prompts, [pictures for pictures, _ in questions])
        for tokens in generate(self.model, prompts, most, choose, sight, step):
            yield [d.decode(self.tokeniser.bytes_of(int(token))) for d, token in zip(decoders, tokens, strict=True)]

    def _sight(self, prompts: Sequence[Sequence[int]], pictures: Sequence[Sequence[Image.Image]]) -> Sight | None:
        config, most = self.model.config, max(map(len, pictures))
        if not most:
            return None
        length, count = max(map(len, prompts)), len(pictures)
        vision = config.vision
        shape = (vision.max_tiles, vision.image_size, vision.image_size, vision.channels)
        pixels, ratios = np.zeros((count, most, *shape), np.float32), np.zeros((count, most), np.int32)
        tiles, seen = np.zeros((count, most, shape[0]), np.int32), np.zeros((count, length, most, shape[0]), np.int32)
        for row, (prompt, images) in enumerate(zip(prompts, pictures, strict=True)):
            for place, image in enumerate(images):
                pixels[row, place], ratios[row, place], tiles[row, place] = tile(image, vision)
            seen[row, : len(prompt), : len(images)] = seen_tiles(prompt, config.image_token, tiles[row, : len(images)])
        states = self.model.encode(Pictures(*map(ops.convert_to_tensor, (pixels, ratios, tiles))))
        return Sight(states, ops.convert_to_tensor(seen))


def _variables(model: LlamaVision, modules: str) -> dict[str, Any]:
    """The matrices A and B of every updated linear map, by name."""
    pairs = ((layer.lora_kernel_a, layer.lora_kernel_b) for layer in lora_layers(model, modules))
    return {variable.path: variable for pair in pairs for variable in pair}


def _updates(model: LlamaVision, modules: str) -> dict[str, np.ndarray]:
    return {name: np.asarray(ops.convert_to_numpy(variable)) for name, variable in _variables(model, modules).items()}
