"""Images: catalog, audit, splits, holdout, decode, augmentation, pipeline.

What must be settled before OpenCV, albumentations and Grain are first imported is settled here.
"""

import logging
import os

# OpenCV reads its limit once: a second wall behind the check of each header in `decode`.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))
# It asks the network for a newer version at import.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
# Grain tells at every import that it has no JAX profiler, which nobody asked for.
logging.getLogger("absl").addFilter(lambda record: "jax profiler" not in record.getMessage())
