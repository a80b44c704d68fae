"""MLflow's experiment and run of a run folder: found again, or created once."""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagetune.core import run_files
from imagetune.core.secrets import redact_uri
from imagetune.core.version import read_version
from imagetune.errors import TrackingError
from imagetune.recipe.metrics import METRICS
from imagetune.tracking.content import clean_tags
from imagetune.tracking.description import read_verdict_title
from imagetune.tracking.state import TrackingState
from imagetune.tracking.store import check_id, create_once, is_absent, locate_artifact_root

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

KEY_TAG = "imagetune.key"
PARENT_TAG = "mlflow.parentRunId"
# Without it MLflow's pages show what is for language models: traces, judges, prompts.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
_VIEW = "imagetune"
VIEW_TAG = f"mlflow.sharedViewState.{_VIEW}"
"""The tag of an experiment that has the view."""
# MLflow's run table starts without a single metric. This is a view as its "share" button saves it. Attributes stand
# before metrics whatever their order here, so that each one pushes a metric off the screen.
_VIEW_STATE = {
    "selectedColumns": [
        "attributes.`Created`",
        *(f"metrics.`test/{name}`" for name, metric in METRICS.items() if metric.cards),
        "params.`model.backbone`",
        "tags.`imagetune.verdict`",
    ],
}


def ensure_run(client: MlflowClient, run_dir: Path, uri: str, state: TrackingState) -> None:
    """Set ``state.run_id`` and ``state.experiment_id`` to a run that is there, creating it at most once.

    A run that the store doesn't know any more (its database was deleted) is made anew.

    Raises:
        TrackingError: The run or the experiment was deleted by its users.
    """
    if state.run_id and (run := _find_run(client, uri, state.run_id)):
        state.experiment_id = check_id(run.info.experiment_id, uri)
        return
    state.forget_run()
    state.experiment_id = check_id(_ensure_experiment(client, uri, state.experiment), uri)
    # A process that was killed between the creation of the run and its note in tracking.json, or a server whose answer
    # was lost, has left one with this key.
    made = create_once(lambda: _find_by_key(client, state), lambda: _create_run(client, run_dir, state))
    state.run_id = check_id(made, uri)


def build_view_page(experiment_id: str) -> str:
    """Return the address, below the server's, of an experiment's run list with the columns of imagetune's view."""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={_VIEW}"


def build_run_tags(
    run_dir: Path,
    state: TrackingState,
    recipe: Mapping[str, Any],
    status: Mapping[str, Any],
    evaluation: Mapping[str, Any],
) -> dict[str, str]:
    """Return a run's MLflow tags: its source, version, verdict, backbone and error; the user's own tags win."""
    tags = {
        "mlflow.source.name": "imagetune",
        "mlflow.source.type": "LOCAL",
        "imagetune.version": read_version(),
        "imagetune.recipe": str(recipe.get("name") or ""),
        "imagetune.run_folder": str(run_dir.absolute()),
        "imagetune.verdict": read_verdict_title(evaluation),
    }
    if backbone := (recipe.get("model") or {}).get("backbone"):
        tags["imagetune.backbone"] = str(backbone)
    if error := status.get("error"):
        tags["imagetune.error"] = str(error)
    # The run may have been made while its parent could not be.
    if state.parent_run_id:
        tags[PARENT_TAG] = state.parent_run_id
    return clean_tags({name: value for name, value in {**tags, **state.tags}.items() if value})


def _find_run(client: MlflowClient, uri: str, run_id: str) -> Run | None:
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if is_absent(error):
            return None
        raise
    if run.info.lifecycle_stage == "deleted":
        hint = "restore it in MLflow, or delete tracking.json in the run folder and sync it as a new run"
        raise TrackingError(f"run {run_id} was deleted in MLflow", where=redact_uri(uri), hint=hint)
    return run


def _find_by_key(client: MlflowClient, state: TrackingState) -> str | None:
    """Return the id of the run that was created for this run folder; None without one."""
    found = client.search_runs(
        [state.experiment_id or "0"],
        f"tags.`{KEY_TAG}` = '{state.key}'",
        max_results=1,
        order_by=["attribute.start_time"],
    )
    return str(found[0].info.run_id) if found else None


def _ensure_experiment(client: MlflowClient, uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        root = locate_artifact_root(uri)
        folder = None if root is None else f"{root}/{_folder_name(name)}"
        try:
            return _describe_experiment(client, client.create_experiment(name, folder, tags=_EXPERIMENT_TAGS))
        except MlflowException as error:
            # Another run made it since we asked.
            if getattr(error, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage == "deleted":
        hint = "restore it in MLflow's UI, or choose another tracking.experiment"
        raise TrackingError(f"experiment {name!r} was deleted in MLflow", where=redact_uri(uri), hint=hint)
    return str(experiment.experiment_id)


def _describe_experiment(client: MlflowClient, experiment_id: str) -> str:
    """Give a new experiment a table view with the headline metrics, and a description that links to it."""
    link = build_view_page(experiment_id)
    text = f"Image models fine-tuned with imagetune. [**Show the test metrics of all runs**]({link})"
    client.set_experiment_tag(experiment_id, VIEW_TAG, json.dumps(_VIEW_STATE))
    client.set_experiment_tag(experiment_id, "mlflow.note.content", text)
    return experiment_id


def _create_run(client: MlflowClient, run_dir: Path, state: TrackingState) -> str:
    tags = {KEY_TAG: state.key, "mlflow.user": _user()}
    if state.parent_run_id:
        tags[PARENT_TAG] = state.parent_run_id
    recipe = run_dir / run_files.RECIPE
    # When the run really began: the server may have come back hours later.
    started = int(recipe.stat().st_mtime * 1000) if recipe.exists() else None
    run = client.create_run(state.experiment_id or "0", start_time=started, tags=tags, run_name=run_dir.name)
    return str(run.info.run_id)


def _folder_name(name: str) -> str:
    # The name of an experiment may hold slashes and anything else that a folder can't.
    return "".join(letter if letter.isalnum() or letter in "_-" else "-" for letter in name)[:100]


def _user() -> str:
    """Return the user's name, which MLflow shows beside a run."""
    # In a container the user may have a number and no name.
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
