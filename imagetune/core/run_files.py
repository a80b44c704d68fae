"""File names of a run folder, defined only here.

Code with a run folder uses the paths of `imagetune.run_folder.folder.RunFolder`. Packages below it in the layers, which
may not import it, use these names.
"""

from __future__ import annotations

RECIPE = "recipe.yaml"
LOCK = "lock.json"
SPLITS = "splits.csv"
AUDIT = "audit.json"
STATUS = "status.json"
STAGES = "stages.jsonl"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
MODEL = "model"
KERAS_MODEL = "model.keras"
PREDICTIONS = "predictions"
EVALUATION = "evaluation.json"
LABEL_ERRORS = "label_errors.csv"
EXPLANATIONS = "explanations"
ROBUSTNESS = "robustness"
FOLDS = "folds"
SOUP = "soup.json"
PLOTS = "plots"
REPORT = "report.html"
MODEL_CARD = "model_card.md"
TRACKING = "tracking.json"
DEBUG_LOG = "debug.log"
