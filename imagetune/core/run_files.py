"""File names of a run folder and of a search's folder, defined only here.

Code with a run folder uses the paths of `imagetune.run_folder.folder.RunFolder`. Packages below it in the layers, which
may not import it, use these names.
"""

from __future__ import annotations

from pathlib import Path

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
LABELS = "labels.json"
PREDICT_SCRIPT = "predict.py"
PREDICTIONS = "predictions"
EVALUATION = "evaluation.json"
LABEL_ERRORS = "label_errors.csv"
EXPLANATIONS = "explanations"
ROBUSTNESS = "robustness"
FOLDS = "folds"
SOUP = "soup.json"
PLOTS = "plots"
EXPORTS = "exports"
REPORT = "report.html"
MODEL_CARD = "model_card.md"
TRACKING = "tracking.json"
SYSTEM = "system.jsonl"
DEBUG_LOG = "debug.log"
RUN_LOCK = ".run.lock"
TRACKING_LOCK = ".tracking.lock"
RECEIPT = "receipt.json"

# Marks a folder that imagetune made and that has no recipe, such as one of explanations.
WRITTEN = ".written-by-imagetune"

# What a search's folder has besides.
SEARCH = "search.json"
JOURNAL = "journal.jsonl"
WARM_START = "warm_start.json"
SEARCH_TABLE = "search.csv"
SWEEP_TABLE = "sweep.csv"
BAKEOFF_TABLE = "bakeoff.csv"
TRIALS = "trials"
INTERRUPTED = "interrupted"
BEST_RECIPE = "best.yaml"
BEST = "best"
IMAGES_TABLE = "images.csv"

# What a trial's folder has besides.
TRIAL_FOLDS = "trial.json"
TRIAL_LOG = "trial.log"
PROBE = "probe.json"


def trial_folder_name(trial_id: str) -> str:
    """Return the name of a trial's run folder: ``trial-001``."""
    return f"trial-{trial_id}"


def trial_folder(search: Path, trial_id: str) -> Path:
    """Return a trial's run folder in the folder of its search: ``trials/trial-001``."""
    return search / TRIALS / trial_folder_name(trial_id)


def next_numbered(folder: Path) -> Path:
    """Return the first of ``NAME-1``, ``NAME-2``, ... beside a folder ``NAME`` that doesn't exist yet."""
    number = 1
    while (place := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    return place
