"""Training Llama 3.2 Vision on questions about pictures: low-rank updates of a published model, or a small new one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from files.download import cache_of
from training.backends import Placement
from training.config import TrainingConfig
from training.dry_run import first_step
from training.evaluation import make_evaluator
from training.figures import Cost
from training.job import Figures, Job, make_job
from training.loop import fit
from training.named_arrays import fingerprint
from training.randomness import seeded
from training.run import Run
from training.session import session
from vision_bridge.llama.batches import LlamaBatch, Rows, evaluation_batches, training_batches
from vision_bridge.llama.checkpoint import load_checkpoint, read_config
from vision_bridge.llama.digits import byte_tokeniser, digits_album, small_config
from vision_bridge.llama.examples import Album, Tokens, album_of, tokens_of
from vision_bridge.llama.model import LlamaVision
from vision_bridge.llama.objective import add_lora, make_loss_fn, open_gates
from vision_bridge.llama.predictor import Base, Predictor
from vision_bridge.llama.quantisation import quantise
from vision_bridge.llama.sight import AlbumPictures, frozen_states, whole_pictures
from vision_bridge.llama.task_config import FinetuneLlamaConfig
from vision_bridge.llama.tokeniser import Tokeniser, check_tokens, read_tokeniser


class TrainingInput(NamedTuple):
    """The input of training."""

    album: Album
    tokeniser: Tokeniser
    model: LlamaVision
    base: str  # fingerprint of the published weights; empty for a new model
    rows: dict[str, Rows]

    def predictor(self, config: FinetuneLlamaConfig) -> Predictor:
        """The model as it is now."""
        if config.checkpoint is None:
            return Predictor(self.model, self.tokeniser)
        folder = str(config.checkpoint.absolute())
        base = Base(folder, self.base, config.variant, config.lora_rank, config.lora_modules, config.quantize)
        return Predictor(self.model, self.tokeniser, base)


def finetune(config: FinetuneLlamaConfig, run_dir: Path | str) -> dict[str, Any]:
    """Trains, and writes ``result.json`` with the exact matches of the test questions.

    Args:
        config: every choice.
        run_dir: the run folder; after an interruption, the same call resumes there.

    Returns:
        The content of ``result.json``.
    """
    Run.check(run_dir, config)
    with session(config, config.training) as placement:
        prepared = prepare(config, placement)
        with Run.open(run_dir, config, prepared.album, {"base": prepared.base}) as run:
            done = run.finished("test_exact_match")
            if done is not None:
                run.missing_picture("answers.png", lambda path: _draw_answers(
                    prepared, Predictor.of_run(run.path, placement, config.checkpoint), path))  # fmt: skip
                return done
            training = _resolved(config, prepared)
            figures_of = make_figures(prepared, config, placement)
            job = make(config, prepared, training, figures_of, placement)
            run.say(f"{_sizes(prepared)}\n{_parameters(job)}")
            state = fit(job, placement, run, training)
            figures = {f"test_{name}": value for name, value in figures_of("test").items()}
            prepared.predictor(config).save(run.path / "model")
            result = figures | {
                "train_seconds": state.seconds,
                "steps": state.step,
                "best_step": state.best_step,
                "num_parameters": job.model.count_params(),
                "seed": config.seed,
            }
            run.write_json("result.json", result)
            run.picture("answers.png", lambda path: _draw_answers(prepared, prepared.predictor(config), path))
            run.say(f"test exact match {result['test_exact_match']:.4f} of {len(prepared.rows['test'].examples):,} "
                    f"questions\neverything is in {run.path}")  # fmt: skip
            return result


def dry_run(config: FinetuneLlamaConfig) -> None:
    """Prints sizes and the cost of a step, and writes nothing."""
    with session(config, config.training) as placement:
        prepared = prepare(config, placement)
        training = _resolved(config, prepared)
        job = make(config, prepared, training, make_figures(prepared, config, placement), placement)
        print(_sizes(prepared))
        print(f"{_parameters(job)}; {training.num_steps:,} steps of {training.batch_size}")
        print(f"one step: {first_step(job, placement, training).cost}; nothing was written")


def prepare(config: FinetuneLlamaConfig, placement: Placement) -> TrainingInput:
    """Examples, model and tokens."""
    if config.dataset == "digits":
        album, tokeniser, sizes = digits_album(config.seed, config.shuffle_images), byte_tokeniser(), small_config()
    else:
        assert config.data_path is not None and config.checkpoint is not None
        album = album_of(config.data_path, config.validation_share, config.test_share, config.seed)
        tokeniser, sizes = read_tokeniser(config.checkpoint), read_config(config.checkpoint).as_in(config.variant)
    tokens = {split: [tokens_of(one, tokeniser) for one in part] for split, part in album.examples.items()}
    if config.checkpoint is not None:
        rows = [one for part in tokens.values() for one in part]
        ids = {*tokeniser.special.values(), *(token for one in rows for token in one.ids)}
        answers = {*tokeniser.ends, *(token for one in rows for token in one.ids[one.first :])}
        check_tokens(config.checkpoint, ids, answers, sizes.text.vocabulary)
    with placement.scope(), seeded(config.seed):
        model, base = LlamaVision(sizes), ""
        if config.checkpoint is None:
            open_gates(model, 0.5)
        else:
            load_checkpoint(config.checkpoint, model)
            base = fingerprint(model.variables, "llama")
            quantise(model, config.quantize)
            add_lora(model, config.lora_rank, config.lora_modules)
    if base:
        shown = frozen_states(album, model, base, config.quantize, placement, cache_of(config.cache_dir))
    else:
        shown = whole_pictures(album, sizes.vision)
    return TrainingInput(album, tokeniser, model, base, _rows(album, tokens, model, shown))


def _rows(album: Album, tokens: dict[str, list[Tokens]], model: LlamaVision, shown: AlbumPictures) -> dict[str, Rows]:
    everything = [one for part in tokens.values() for one in part]
    lengths = (
        max(len(one.ids) for one in everything),
        max(len(one.ids) - one.first for one in everything),
        max(1, *(len(one.pictures) for part in album.examples.values() for one in part)),
    )
    return {split: Rows(album.examples[split], tokens[split], shown, model.config, lengths) for split in tokens}


def _resolved(config: FinetuneLlamaConfig, prepared: TrainingInput) -> TrainingConfig:
    return config.training.resolved(-(-len(prepared.rows["train"].examples) // config.training.batch_size))


def make(
    config: FinetuneLlamaConfig,
    prepared: TrainingInput,
    training: TrainingConfig,
    figures_of: Callable[[str], Figures],
    placement: Placement,
) -> Job:
    """The job that the engine trains."""
    size, rows = training.batch_size, prepared.rows
    return make_job(
        prepared.model,
        make_loss_fn(prepared.model, frozen_tower=bool(prepared.base), remat=config.remat),
        lambda step: training_batches(rows["train"], size, config.seed, step),
        lambda: figures_of("validation"),
        placement,
        training,
        config.seed,
    )


def make_figures(
    prepared: TrainingInput, config: FinetuneLlamaConfig, placement: Placement
) -> Callable[[str], Figures]:
    """A function, compiled once: split → mean loss of the answers' tokens, and the share of questions with the whole
    answer right."""
    loss_fn = make_loss_fn(prepared.model, frozen_tower=bool(prepared.base))

    def values_of(batch: LlamaBatch) -> dict[str, Any]:
        return loss_fn(batch, False, None) | {"tokens": batch.mask}

    score = make_evaluator(values_of, placement)

    def figures(split: str) -> Figures:
        values = score(evaluation_batches(prepared.rows[split], config.training.batch_size))
        return {
            "loss": Cost(float(np.average(values["loss"], weights=values["tokens"]))),
            "token_accuracy": float(np.average(values["token_accuracy"], weights=values["tokens"])),
            "exact_match": float(values["exact_match"].mean()),
        } | _by_kind(prepared, split, values["exact_match"])

    return figures


def _by_kind(prepared: TrainingInput, split: str, right: np.ndarray) -> Figures:
    """Exact matches of each prompt, if there are few different prompts."""
    prompts = [example.prompt for example in prepared.rows[split].examples]
    kinds = sorted(set(prompts))
    if len(kinds) > 5:
        return {}
    chosen = {kind: np.array([prompt == kind for prompt in prompts]) for kind in kinds}
    return {f"exact_match {kind}": float(right[rows].mean()) for kind, rows in chosen.items()}


def _draw_answers(prepared: TrainingInput, predictor: Predictor, path: Path, count: int = 12) -> None:
    """Draws the first test questions with the model's answers."""
    from vision_bridge.llama import plots

    examples = prepared.album.examples["test"][:count]
    pictures = [[prepared.album.open(key) for key in example.pictures] for example in examples]
    questions = list(zip(pictures, (example.prompt for example in examples), strict=True))
    steps = list(predictor.answers(questions, most=prepared.rows["test"].lengths[1]))
    plots.answers(examples, pictures, ["".join(parts) for parts in zip(*steps, strict=True)], path)


def _sizes(prepared: TrainingInput) -> str:
    sizes = ", ".join(f"{len(part):,} {split}" for split, part in prepared.album.examples.items())
    longest = prepared.rows["train"].lengths
    return f"questions: {sizes}; {len(prepared.album.pictures):,} pictures; at most {longest[0]} tokens a row"


def _parameters(job: Job) -> str:
    trained = sum(int(np.prod(variable.shape)) for variable in job.model.trainable_variables)
    return f"model: {job.model.count_params():,} parameters, {trained:,} of them trained"
