"""Scripts that wire data, model and engine together; one ``python -m experiments.NAME`` each."""
