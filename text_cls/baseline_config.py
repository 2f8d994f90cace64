"""Every choice of the baselines."""

import dataclasses

from files.errors import UserError
from text_cls.config import CleaningConfig, DataConfig
from training.config import TaskConfig
from training.options import nested, option

FORMER_MODELS = ("naive_bayes", "logistic_regression", "linear_svm")  # the default of versions before 0.7


@dataclasses.dataclass(frozen=True)
class BaselineConfig(TaskConfig):
    """N-grams with linear models on the same data; ``text_cls.baseline_task.run_baselines``."""

    data: DataConfig = nested(DataConfig)
    cleaning: CleaningConfig = nested(CleaningConfig)
    models: tuple[str, ...] = option(
        (*FORMER_MODELS, "linear_svm_characters", "nb_svm"),
        "Models to fit; linear_svm_characters also reads n-grams of 2 to 5 characters inside words.",
        choices="text_cls.linear.baselines:MODELS",
    )
    max_ngram: int = option(2, "Longest word n-gram.", low=1)
    strength: float = option(1.0, "Multiple of the default C or 1/alpha; larger: less regularisation.", low=0.0)
    train_on_validation: bool = option(
        False,
        "Also fit on the validation rows, which the baselines use for nothing else; then only the test is scored.",
    )

    def check(self) -> None:
        if self.train_on_validation and self.data.multi_label:
            raise UserError(
                "--train_on_validation: the thresholds of --multi_label are fitted on validation rows that were not "
                "trained on; leave out --train_on_validation"
            )
