"""TF-IDF baselines on the data flags of ``train_text``: naive Bayes, logistic regression, linear SVM.

python -m experiments.baselines_text --dataset=bbc_news
"""

import time
from typing import Any

from absl import flags

from experiments import launch, text_data
from training.errors import UserError

FLAGS = flags.FLAGS

launch.define_shared_flags()
text_data.define_data_flags()
text_data.define_cleaning_flags()
flags.adopt_module_key_flags(launch)
flags.adopt_module_key_flags(text_data)
flags.DEFINE_list("models", ["naive_bayes", "logistic_regression", "linear_svm"], "Which to fit.")
flags.DEFINE_integer("max_ngram", 2, "Longest word n-gram.", lower_bound=1)
flags.DEFINE_float("strength", 1.0, "Factor of the default fit strength (C, or 1/alpha).", 0.0)


def main() -> None:
    """Data, features, models, report; the test split is scored once, after fitting on the training rows."""
    from experiments import plots
    from text_cls.baselines import MODELS, features, run_baseline
    from text_cls.metrics import as_text, flat, report

    unknown = [name for name in FLAGS.models if name not in MODELS]
    if unknown:
        raise UserError(f"--models={','.join(unknown)} is not known: use {', '.join(MODELS)}")
    path = launch.run_dir(f"baselines_text-{FLAGS.dataset}")
    launch.check_run(path)
    splits, corpora = text_data.clean_splits(text_data.load_splits(), text_data.make_cleaner())
    train, validation, test = features(corpora["train"], [corpora["validation"], corpora["test"]], FLAGS.max_ngram)
    print(f"{FLAGS.dataset}: {train.shape[0]:,} train, {test.shape[0]:,} test rows; {train.shape[1]:,} n-grams")
    if FLAGS.dry_run:
        print("nothing was written")
        return
    run = launch.open_run(path)
    run.write_json("data.json", splits.describe())
    labels = {name: texts.labels for name, texts in splits.parts().items() if texts.labels is not None}
    reports: dict[str, Any] = {}
    result: dict[str, Any] = {}
    for name in FLAGS.models:
        start = time.monotonic()
        predictions = run_baseline(name, train, labels["train"], [validation, test], FLAGS.strength)
        seconds = time.monotonic() - start
        reports[name] = {
            split: report(p, labels[split], splits.classes)
            for split, p in zip(("validation", "test"), predictions, strict=True)
        }
        run.say(f"{name}, {seconds:.1f} s, validation {reports[name]['validation']['accuracy']:.4f}; test split:")
        run.say(as_text(reports[name]["test"]))
        plots.confusion(reports[name]["test"]["confusion"], splits.classes, run.path / f"confusion_{name}.png")
        result |= {f"{name}_train_seconds": seconds}
        for split, short in (("validation", "val"), ("test", "test")):
            result |= {f"{name}_{short}_{key}": value for key, value in flat(reports[name][split]).items()}
    run.write_json("report.json", reports)
    run.write_json("result.json", result | {"seed": FLAGS.seed})


if __name__ == "__main__":
    launch.launch(main)
