"""Scripts that wire data, model and engine together; one ``python -m experiments.NAME`` each."""

import sys

if sys.argv[:1] == ["-m"]:  # only while `python -m experiments.NAME` looks for NAME, before anything else is imported
    from experiments import signals

    signals.end_on_signals()
