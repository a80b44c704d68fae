"""Data: sources, audit, near-duplicates, splits, and loading from files to batches.

Settings that OpenCV, albumentations and Grain read when they are first imported are made here.
"""

import logging
import os

# A second limit behind the check of each header in `decode`; OpenCV reads it once, at import. Always ours: a smaller
# one refuses images that are fine, and OpenCV ends the whole process over a value that is no number.
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(2**28)
# albumentations would ask the network for a newer version at import.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
# Grain logs at every import that it has no JAX profiler, which nobody here uses.
logging.getLogger("absl").addFilter(lambda record: "jax profiler" not in record.getMessage())
