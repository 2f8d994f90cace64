"""Shared flags, and the one way a script starts and ends. Imports nothing heavy, so that ``--help`` is quick."""

import errno
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import app, flags

from training.errors import Interrupted, UserError

if TYPE_CHECKING:
    from training.loop import Job, Settings
    from training.run import Run, Writer
    from training.strategy import Placement

FLAGS = flags.FLAGS
# Where a run lies and what it prints, not what it computes.
_NOT_OF_THE_RUN = ("run_dir", "cache_dir", "dry_run", "tensorboard")


def define_shared_flags() -> None:
    """Flags of every script."""
    flags.DEFINE_integer("seed", 0, "Of everything random.", lower_bound=0, upper_bound=2**32 - 1)
    flags.DEFINE_string("run_dir", "", "Folder of this run; resumed if it exists with the same flags. [runs/NAME-DATE]")
    flags.DEFINE_string("cache_dir", "", "Downloads and tokenised texts. [$TRIPTYCH_CACHE or ~/.cache/triptych]")
    flags.DEFINE_bool("dry_run", False, "Build everything, print sizes and costs, take one step, write nothing.")
    flags.DEFINE_string("devices", "auto", "auto, cpu, gpu, or a number of replicas: gpu:2, cpu:2.")


def define_training_flags(**defaults: Any) -> None:
    """Flags of every script that trains; ``defaults`` override the defaults below."""

    def default(name: str, value: Any) -> Any:
        return defaults.get(name, value)

    flags.DEFINE_integer("batch_size", default("batch_size", 64), "Examples in one update, over all replicas.", 1)
    flags.DEFINE_float("num_epochs", default("num_epochs", 10.0), "Passes over the training examples.", 0.0)
    flags.DEFINE_integer("num_steps", default("num_steps", 0), "Updates; 0: by --num_epochs.", 0)
    flags.DEFINE_float("learning_rate", default("learning_rate", 1e-3), "Peak learning rate.", 0.0)
    flags.DEFINE_enum(
        "schedule", default("schedule", "linear"), ["linear", "cosine", "noam", "constant"], "After warm-up."
    )
    flags.DEFINE_float("warmup", default("warmup", 0.1), "Share of the steps (below 1), or steps, of warm-up.", 0.0)
    flags.DEFINE_float("weight_decay", default("weight_decay", 0.01), "Decoupled; none on biases and norms.", 0.0)
    flags.DEFINE_float("clip_norm", 1.0, "Bound on the global gradient norm; 0 for none.", 0.0)
    flags.DEFINE_float("ema_decay", default("ema_decay", 0.0), "Average the weights with this decay; 0: no.", 0.0, 1.0)
    flags.DEFINE_integer("log_every", 50, "Steps between log lines.", 1)
    flags.DEFINE_integer(
        "eval_every", default("eval_every", 0), "Steps between evaluations and checkpoints; 0: once an epoch.", 0
    )
    flags.DEFINE_string(
        "select", default("select", "accuracy"), "Validation figure that picks the best weights; empty: the last."
    )
    flags.DEFINE_integer("patience", 0, "Stop after this many evaluations without improvement; 0: never.", 0)
    flags.DEFINE_enum("precision", "float32", ["float32", "mixed_bfloat16"], "Of the layers' arithmetic.")
    flags.DEFINE_bool("xla", False, "Compile forward and backward pass with XLA.")
    flags.DEFINE_integer(
        "shards", default("shards", 0), "Parts of a batch computed side by side; 0: one a core on CPU, 1 on GPU.", 0
    )
    flags.DEFINE_integer("accumulate", 1, "Parts of a batch computed one after another, to save memory.", 1)
    flags.DEFINE_bool("deterministic", False, "Only operations that are repeatable on GPUs too; slower there.")
    flags.DEFINE_bool("tensorboard", False, "Write TensorBoard events into the run folder.")


def launch(main: Callable[[], None]) -> None:
    """Runs a script's ``main``; a user's mistake ends with one line on standard error and a non-zero status."""

    def body(argv: list[str]) -> None:
        if len(argv) > 1:
            sys.exit(f"error: unexpected argument {argv[1]!r}; see --help")
        run(main)

    app.run(body)


def run(main: Callable[[], None]) -> None:
    """``main``, with a user's mistakes and interruptions turned into messages."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # off by default on CPUs without AVX-512; a tenth faster there
    try:
        main()
        end: str | int = 0
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        end = 130
    except UserError as error:
        end = f"error: {error}"
    except KeyboardInterrupt:
        end = "interrupted"
    except BrokenPipeError:
        end = 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
            raise
        end = (f"error: {error.filename or 'a file'}: cannot be written ({error.strerror}); "
               "make room and run the same command with the same --run_dir again")  # fmt: skip
    # An exception keeps its frames, and they keep tf.data's iterators: one whose thread is in Python's hands when the
    # interpreter shuts down never ends. So all is let go before.
    gc.collect()
    if end:
        sys.exit(end)


def run_flags() -> dict[str, str]:
    """What makes a run what it is: every flag of ours with its value."""
    found = {}
    for module, module_flags in FLAGS.flags_by_module_dict().items():
        if module == sys.argv[0] or module.startswith("experiments."):  # absl and TensorFlow define flags too
            found.update({f.name: f for f in module_flags})
    return {name: _text(flag.value) for name, flag in found.items() if name not in _NOT_OF_THE_RUN}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, list) else str(value)


def cache_dir() -> Path:
    """``--cache_dir``, or its default."""
    from training.download import default_cache

    return Path(FLAGS.cache_dir).expanduser() if FLAGS.cache_dir else default_cache()


def run_dir(name: str) -> Path:
    """``--run_dir``, or a new folder under ``runs/``."""
    return Path(FLAGS.run_dir) if FLAGS.run_dir else Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def make_placement() -> "Placement":
    """Where the script runs, from --devices."""
    from training.strategy import make_strategy

    return make_strategy(FLAGS.devices, FLAGS.shards if "shards" in FLAGS else 0)


def prepare_devices() -> "Placement":
    """Seeds, precision, determinism and strategy, from the flags of training."""
    import keras
    import tensorflow as tf

    from training.strategy import set_precision

    keras.utils.set_random_seed(FLAGS.seed)
    set_precision(FLAGS.precision)
    if FLAGS.deterministic:
        tf.config.experimental.enable_op_determinism()
    placement = make_placement()
    replicas = placement.strategy.num_replicas_in_sync
    if FLAGS.batch_size % (replicas * FLAGS.accumulate):
        times = f" × --accumulate={FLAGS.accumulate}" if FLAGS.accumulate > 1 else ""
        raise UserError(f"--batch_size={FLAGS.batch_size} is not a multiple of the {replicas} replicas{times}")
    return placement


def settings(steps_per_epoch: int) -> "Settings":
    """The loop's settings, from the flags."""
    from training.loop import Settings

    if FLAGS.patience and not FLAGS.select:
        raise UserError(f"--patience={FLAGS.patience} needs --select: which figure is to improve?")
    return Settings(
        num_steps=FLAGS.num_steps or max(1, round(FLAGS.num_epochs * steps_per_epoch)),
        log_every=FLAGS.log_every,
        eval_every=FLAGS.eval_every or steps_per_epoch,
        clip_norm=FLAGS.clip_norm,
        select=FLAGS.select,
        minimize=FLAGS.select in ("loss", "calibration_error", "fid") or FLAGS.select.startswith("mse_"),
        patience=FLAGS.patience,
        seed=FLAGS.seed,
        jit_compile=FLAGS.xla,
        accumulate=FLAGS.accumulate,
    )


def make_optimizer(num_steps: int, learning_rate: float = 0.0, **options: Any) -> Any:
    """AdamW with the schedule of the flags, and ``options`` of its own; not built yet.

    ``learning_rate`` is its peak; 0 takes the flag's.
    """
    from training.optimizer import AdamW
    from training.schedules import Schedule

    warmup = round(FLAGS.warmup * num_steps) if FLAGS.warmup < 1 else round(FLAGS.warmup)
    schedule = Schedule(FLAGS.schedule, learning_rate or FLAGS.learning_rate, warmup, num_steps)
    return AdamW(schedule, FLAGS.weight_decay, ema_decay=FLAGS.ema_decay, **options)


def check_run(path: Path) -> None:
    """Refuses a folder that belongs to something else, before any work."""
    from training.run import Run

    Run.check(path, run_flags())


def open_run(path: Path) -> "Run":
    """The run folder, made or found."""
    from training.run import Run

    return Run.open(path, run_flags())


def finished(path: Path, figure: str) -> bool:
    """Whether the run folder holds a finished run of these flags; refuses one of other flags before any work."""
    from training.run import Run

    if not (path / "result.json").exists():
        Run.check(path, run_flags())
        return False
    result = Run.open(path, run_flags()).read_json("result.json") or {}
    print(f"{path}: finished before, {figure.replace('_', ' ')} {result[figure]:.4f}; nothing to do")
    return True


def open_data_run(path: Path, splits: Any) -> "Run":
    """The run folder, for this data: writes the fingerprints, or compares them with those of the run it resumes.

    ``splits`` describes itself (``describe()``) and has ``notes``.
    """
    run = open_run(path)
    run.writer = tensorboard_writer(path) if "tensorboard" in FLAGS and FLAGS.tensorboard else None
    now = json.loads(json.dumps(splits.describe()))
    before = run.read_json("data.json")
    if before is not None and before != now:
        raise UserError(f"--run_dir={run.path} was trained on other data (see its data.json); choose another folder")
    run.write_json("data.json", now)
    for note in splits.notes:
        run.say(f"note: {note}")
    return run


def first_step(job: "Job", placement: "Placement", settings: "Settings") -> tuple[dict[str, float], str]:
    """Takes one step: its sums, and what it cost."""
    import tensorflow as tf

    from training.loop import make_train_step

    dataset = placement.strategy.experimental_distribute_dataset(job.train(0))
    train_step = make_train_step(job, placement, settings, dataset.element_spec)
    batch = next(iter(dataset))
    start = time.monotonic()
    train_step.get_concrete_function(batch, tf.constant(0, tf.int64))
    traced = time.monotonic()
    sums = {name: float(value) for name, value in train_step(batch, tf.constant(0, tf.int64)).items()}
    seconds = time.monotonic() - traced
    state = sum(v.value.dtype.size * int(tf.size(v.value)) for v in (*job.model.variables, *job.optimizer.variables))
    return sums, (
        f"{seconds:.2f} s (the first, after {traced - start:.1f} s of tracing), "
        f"loss {sums['loss'] / sums['count']:.4f}; {state / 2**20:,.0f} MiB of weights and optimizer state"
    )


def tensorboard_writer(path: Path) -> "Writer":
    """Writes figures as TensorBoard scalars under ``path/tensorboard``."""
    import tensorflow as tf

    writers: dict[str, Any] = {}

    def write(step: int, split: str, figures: dict[str, float]) -> None:
        writer = writers.setdefault(split, tf.summary.create_file_writer(str(path / "tensorboard" / split)))
        with writer.as_default(step):
            for name, value in figures.items():
                tf.summary.scalar(name, value)
        writer.flush()

    return write
