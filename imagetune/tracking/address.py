"""Address of MLflow's tracking store, resolved from recipe and environment."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from imagetune.core.secrets import HIDDEN, redact_uri
from imagetune.errors import TrackingError
from imagetune.recipe.sections.tracking import find_uri_problem

DEFAULT_URI = "sqlite:///mlflow.db"
URI_VARIABLE = "MLFLOW_TRACKING_URI"
EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def resolve_uri(uri: str | None) -> str:
    """Return the address of the store, complete and with an absolute path when it is a local file.

    Args:
        uri: What the recipe says; None means $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the working folder.

    Raises:
        TrackingError: It is no address of a store, or its password was left out and is nowhere to be found.
    """
    given = uri or os.environ.get(URI_VARIABLE) or DEFAULT_URI
    if problem := find_uri_problem(given):
        raise TrackingError(problem, where="tracking.uri" if uri else f"${URI_VARIABLE}")
    return _absolute(_with_credentials(given))


def resolve_experiment(experiment: str | None, recipe_name: str) -> str:
    """Return the experiment's name: the recipe's, else $MLFLOW_EXPERIMENT_NAME, else the recipe's own name."""
    return experiment or os.environ.get(EXPERIMENT_VARIABLE) or recipe_name


def sqlite_path(uri: str) -> Path | None:
    """Return the database file of a ``sqlite:///`` address; None for every other kind of store."""
    if not uri.startswith("sqlite:///"):
        return None
    # Decoded, as SQLAlchemy does: a folder's own % and ? stand encoded in a complete address.
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0])).absolute()


def is_http(uri: str) -> bool:
    """Return whether the store is a server that speaks HTTP."""
    return uri.startswith(("http://", "https://"))


def locate_database(uri: str) -> tuple[str, int] | None:
    """Return host and port of a database that is reached over a network; None for every other kind of store."""
    try:
        parts = urlsplit(uri)
        default = _DATABASE_PORTS.get(parts.scheme.partition("+")[0].lower())
        return (parts.hostname, parts.port or default) if default and parts.hostname else None
    # A password with signs that an address must have encoded.
    except ValueError:
        return None


def _absolute(uri: str) -> str:
    path = sqlite_path(uri)
    if path is None or not path.name:
        return uri
    query = uri.partition("?")[2]
    place = str(path).replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{place}?{query}" if query else f"sqlite:///{place}"


def _with_credentials(uri: str) -> str:
    """Return ``uri`` itself, or the address that it was before its secrets were replaced by ``***``."""
    if HIDDEN not in uri:
        return uri
    from_environment = os.environ.get(URI_VARIABLE, "")
    # A run folder keeps the address without its password: the environment completes it only where the rest is the same.
    if redact_uri(from_environment) == uri:
        return from_environment
    if is_http(uri) and os.environ.get("MLFLOW_TRACKING_USERNAME"):
        return uri.replace(f"{HIDDEN}@", "")
    raise TrackingError(
        "the password of this address is not kept in files",
        where=uri,
        hint=f"give the whole address in ${URI_VARIABLE}",
    )
