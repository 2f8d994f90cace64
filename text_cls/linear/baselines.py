"""Linear models (scikit-learn) on n-grams of words and characters: the baselines for neural models."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, hstack

from text_cls.linear.nb_svm import NaiveBayesSvm
from text_cls.tokens.preprocess import SEP, Corpus

# scikit-learn is imported inside the functions, because --help lists the names of the models.


def _naive_bayes(strength: float) -> Any:
    from sklearn.naive_bayes import MultinomialNB

    return MultinomialNB(alpha=0.1 / strength)


def _logistic_regression(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=10.0 * strength, max_iter=1000)


def _linear_svm(strength: float) -> Any:
    from sklearn.svm import LinearSVC

    return LinearSVC(C=strength)


def _linear_svm_characters(strength: float) -> Any:
    return _linear_svm(0.5 * strength)  # vectors of two blocks of length 1 are longer by a factor of √2


def _nb_svm(strength: float) -> Any:
    return NaiveBayesSvm(C=10.0 * strength)  # uses only which entries of TF-IDF are not zero


class Baseline(NamedTuple):
    """A linear model and its inputs.

    Attributes:
        make: strength → scikit-learn's model, not fitted.
        characters: whether its inputs are n-grams of words and of characters; otherwise of words only.
    """

    make: Callable[[float], Any]
    characters: bool = False


MODELS: dict[str, Baseline] = {
    "naive_bayes": Baseline(_naive_bayes),
    "logistic_regression": Baseline(_logistic_regression),
    "linear_svm": Baseline(_linear_svm),
    "linear_svm_characters": Baseline(_linear_svm_characters, characters=True),
    "nb_svm": Baseline(_nb_svm),
}


def run_baseline(
    name: str,
    train: csr_matrix,
    labels: np.ndarray,
    others: Sequence[csr_matrix],
    strength: float = 1.0,
    num_classes: int = 0,
) -> list[np.ndarray]:
    """Fits one of ``MODELS`` and returns [N, K] class probabilities for each of ``others``.

    K is ``num_classes``, or the number of classes in the labels.

    The SVM has no probabilities: a softmax of its margins keeps their order. With labels [N, K], for several labels a
    text, one model is fitted for each class (one-vs-rest), with a sigmoid of its margin.
    """
    num_classes = num_classes or int(labels.max()) + 1
    if labels.ndim == 2:
        return _run_one_vs_rest(name, train, labels, others, strength)
    model = MODELS[name].make(strength).fit(train, labels)
    has_probabilities = hasattr(model, "predict_proba")
    found = [model.predict_proba(x) if has_probabilities else _softmax(model.decision_function(x)) for x in others]
    return [_of_all_classes(probabilities, model.classes_, num_classes) for probabilities in found]


def _of_all_classes(probabilities: np.ndarray, known: np.ndarray, num_classes: int) -> np.ndarray:
    """[N, known classes] → [N, K]; 0 for a class without training texts."""
    every = np.zeros((len(probabilities), num_classes), probabilities.dtype)
    every[:, known] = probabilities
    return every


def _run_one_vs_rest(
    name: str, train: csr_matrix, labels: np.ndarray, others: Sequence[csr_matrix], strength: float
) -> list[np.ndarray]:
    """As scikit-learn's ``OneVsRestClassifier``; a class of no training text gets 0, a class of all of them 1."""
    found = [np.zeros((x.shape[0], labels.shape[1])) for x in others]
    for k, truth in enumerate((labels > 0).T):
        fitted = None if truth.all() or not truth.any() else MODELS[name].make(strength).fit(train, truth)
        for probabilities, x in zip(found, others, strict=True):
            probabilities[:, k] = float(truth[0]) if fitted is None else _positive(fitted, x)
    return found


def _positive(model: Any, x: csr_matrix) -> np.ndarray:
    """[N] probability of the second of two classes."""
    if hasattr(model, "predict_proba"):
        return model.predict_proba(x)[:, 1]
    return (1 + np.tanh(model.decision_function(x) / 2)) / 2  # the sigmoid


def features(train: Corpus, others: Sequence[Corpus], max_ngram: int = 2) -> list[csr_matrix]:
    """TF-IDF matrices of word n-grams (sublinear tf, fitted on ``train``), first that of ``train``."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer=_analyzer(max_ngram), sublinear_tf=True, dtype=np.float32)
    return [vectorizer.fit_transform(_words(train)), *(vectorizer.transform(_words(corpus)) for corpus in others)]


def with_characters(words: Sequence[csr_matrix], train: Corpus, others: Sequence[Corpus]) -> list[csr_matrix]:
    """``features`` of words, with columns of TF-IDF of character n-grams added; each of the two parts has length 1.

    The n-grams have 2 to 5 characters inside a word with a space before and after it, as scikit-learn's ``char_wb``.
    """
    parts = zip(words, _character_features(train, others), strict=True)
    return [hstack(part, format="csr") for part in parts]


def _character_features(train: Corpus, others: Sequence[Corpus]) -> Iterator[csr_matrix]:
    """Yields one matrix at a time. The n-grams of every *distinct* word are found once, and counted by a product:
    [texts, words] @ [words, n-grams]."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

    counter = CountVectorizer(analyzer="char_wb", ngram_range=(2, 5), lowercase=False, dtype=np.float32)
    counter.fit(_spelled(train))
    weigh = TfidfTransformer(sublinear_tf=True)
    for number, corpus in enumerate((train, *others)):
        counts = _counts(corpus) @ counter.transform(_spelled(corpus))
        yield (weigh if number else weigh.fit(counts)).transform(counts, copy=False)


def _spelled(corpus: Corpus) -> list[str]:
    """The words of the lexicon as characters; <SEP> has none."""
    return ["" if word == SEP else word for word in corpus.lexicon]


def _counts(corpus: Corpus) -> csr_matrix:
    """[texts, words of the lexicon] counts; a word that occurs twice in a text may be two entries, which a product
    adds up."""
    ones = np.ones(len(corpus.ids), np.float32)
    return csr_matrix((ones, corpus.ids, corpus.offsets), (len(corpus), len(corpus.lexicon)))


def _words(corpus: Corpus) -> list[list[str]]:
    lexicon = np.array(corpus.lexicon, dtype=object)
    return [lexicon[part].tolist() for part in np.split(corpus.ids, corpus.offsets[1:-1])]


def _analyzer(max_ngram: int) -> Callable[[list[str]], list[str]]:
    def ngrams(words: list[str]) -> list[str]:
        sizes = range(2, max_ngram + 1)
        return [*words, *(" ".join(words[i : i + n]) for n in sizes for i in range(len(words) - n + 1))]

    return ngrams


def _softmax(scores: np.ndarray) -> np.ndarray:
    if scores.ndim == 1:  # two classes: the margin of the second
        scores = np.stack([-scores, scores], axis=1) / 2
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)
