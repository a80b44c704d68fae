"""The nearest training image by cosine of the pooled features; its probabilities are 0 and 1."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.quality.peers.common import compute_features, parse_arguments, write_predictions


def main() -> None:
    """Fit to the training images, predict the test images."""
    arguments = parse_arguments(__doc__)
    features = compute_features(arguments)
    (x, y), (test, labels) = features["train"], features["test"]
    found = KNeighborsClassifier(n_neighbors=1, metric="cosine").fit(x, y).predict(test)
    write_predictions(arguments.predictions, labels, probabilities=np.eye(int(y.max()) + 1)[found])


if __name__ == "__main__":
    main()
