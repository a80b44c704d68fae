"""Imported once by the process that every trial's process is forked from: what a trial needs, Keras above all.

Nothing here may compute, look for a GPU or start a thread: CUDA and threads don't outlive a fork. That importing Keras
and TensorFlow or JAX does none of it is tested.
"""

from __future__ import annotations

import gc
import os
import sys

# Started with -c, Python looks into the working folder first, where a user's own keras.py may lie.
sys.path[:] = [place for place in sys.path if place]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What is imported is shared with all trials' processes as long as nobody writes to it, which looking for garbage does.
gc.disable()

import imagetune.search.trial_process.run  # noqa: E402, F401

gc.freeze()
gc.enable()
