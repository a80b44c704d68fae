"""scikit-learn's logistic regression on standardised pooled features, its C chosen by cross-validated log loss."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from benchmarks.quality.peers.common import compute_features, parse_arguments, write_predictions

STRENGTHS = np.logspace(-4, 1, 11)
MAX_FOLDS = 5


def main() -> None:
    """Fit to the training images, predict the test images."""
    arguments = parse_arguments(__doc__)
    features = compute_features(arguments)
    (x, y), (test, labels) = features["train"], features["test"]
    folds = min(MAX_FOLDS, int(np.bincount(y).min()))
    strengths = LogisticRegressionCV(
        Cs=STRENGTHS,
        cv=StratifiedKFold(max(2, folds), shuffle=True, random_state=arguments.seed),
        scoring="neg_log_loss",
        max_iter=1000,
    )
    # The matrices are small: several threads take longer, and far longer on a busy machine.
    with threadpool_limits(1):
        probe = make_pipeline(StandardScaler(), strengths).fit(x, y)
    write_predictions(arguments.predictions, labels, probabilities=probe.predict_proba(test))


if __name__ == "__main__":
    main()
