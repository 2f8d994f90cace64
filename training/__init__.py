"""The engine that trains every Triptych package: strategy, loop, schedules, checkpoints, run folder."""

import os

BACKENDS = ("tensorflow", "jax")  # Keras' backends that the engine supports; the first is the default

# TensorFlow and Keras read these when they start; the packages import this module before either of them.
os.environ.setdefault("KERAS_BACKEND", BACKENDS[0])
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # off by default on CPUs without AVX-512; a tenth faster there
