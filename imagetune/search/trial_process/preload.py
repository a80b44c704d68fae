"""Preload of the forkserver: imports what a trial needs, Keras above all, once for all trials.

Nothing here may compute, look for a GPU or start a thread: CUDA and threads don't survive a fork. A test checks that
importing Keras with TensorFlow or JAX does none of it.
"""

from __future__ import annotations

import gc
import os
import sys

# Started with -c, Python looks into the working folder first, where a user's own keras.py may lie.
sys.path[:] = [place for place in sys.path if place]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Forked processes share memory pages until one of them writes there, and the garbage collector writes to every object.
gc.disable()

import imagetune.search.trial_process.run  # noqa: E402, F401

gc.freeze()
gc.enable()
