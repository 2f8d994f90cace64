"""Scripts that wire data, model and engine together; one ``python -m experiments.NAME`` or ``triptych NAME`` each."""

import sys
from pathlib import Path

# Before anything else is imported: `python -m experiments.NAME` looks for NAME, or the console script begins.
if Path(sys.argv[0] if sys.argv else "").stem in ("-m", "triptych"):
    from experiments import signals

    signals.end_on_signals()
