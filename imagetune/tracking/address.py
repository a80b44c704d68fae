"""Address of MLflow's tracking store: resolved from recipe and environment, and redacted for display."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from imagetune.errors import TrackingError

DEFAULT_URI = "sqlite:///mlflow.db"
URI_VARIABLE = "MLFLOW_TRACKING_URI"
EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
HIDDEN = "***"

_LOCAL_SCHEMES = ("sqlite:", "file:")
# Greedy, because a password may hold "/" and "@": better too much hidden than a piece of it shown.
_USER_INFO = re.compile(r"(?<=://)(.*)@")
_SECRET_QUERY = re.compile(r"([?&][^=&#]*(?:pass|pwd|token|secret|key|sig|cred|auth)[^=&#]*=)([^&#]+)", re.IGNORECASE)
_SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
# Shorter pieces would blot out ordinary words of a message; they still go where the whole user info stands.
_SHORTEST_SECRET = 3


def resolve_uri(uri: str | None) -> str:
    """Return the address of the store, complete and with an absolute path when it is a local file.

    Args:
        uri: What the recipe says; None means $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the working folder.

    Raises:
        TrackingError: The password was left out of the address and is nowhere to be found.
    """
    given = uri or os.environ.get(URI_VARIABLE) or DEFAULT_URI
    return _absolute(_with_credentials(given))


def resolve_experiment(experiment: str | None, recipe_name: str) -> str:
    """Return the experiment's name: the recipe's, else $MLFLOW_EXPERIMENT_NAME, else the recipe's own name."""
    return experiment or os.environ.get(EXPERIMENT_VARIABLE) or recipe_name


def redact_uri(uri: str) -> str:
    """Return the address with user, password and secret query values replaced by ``***``."""
    if uri.startswith(_LOCAL_SCHEMES):
        return uri
    return _SECRET_QUERY.sub(rf"\g<1>{HIDDEN}", _USER_INFO.sub(f"{HIDDEN}@", uri))


def redact_text(text: str, uri: str) -> str:
    """Return ``text`` without any secret of ``uri`` or of MLflow's environment variables."""
    for secret in _secrets(uri):
        text = text.replace(secret, HIDDEN)
    return text


def sqlite_path(uri: str) -> Path | None:
    """Return the database file of a ``sqlite:///`` address; None for every other kind of store."""
    if not uri.startswith("sqlite:///"):
        return None
    # Decoded, as SQLAlchemy does: a folder's own % and ? stand encoded in a complete address.
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0])).absolute()


def is_http(uri: str) -> bool:
    """Return whether the store is a server that speaks HTTP."""
    return uri.startswith(("http://", "https://"))


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


def _secrets(uri: str) -> list[str]:
    found = [os.environ[name] for name in _SECRET_VARIABLES if os.environ.get(name)]
    if not uri.startswith(_LOCAL_SCHEMES):
        for info in _USER_INFO.findall(uri):
            user, colon, password = info.partition(":")
            found += [info, password if colon else user]
        found += [value for _, value in _SECRET_QUERY.findall(uri)]
        found.append(_split_password(uri))
    # Servers and libraries print a password as it was typed or percent-encoded.
    found += [unquote(secret) for secret in found]
    # The longest first: a secret that holds another one must go as a whole.
    return sorted({secret for secret in found if len(secret) >= _SHORTEST_SECRET and secret != HIDDEN}, key=len)[::-1]


def _split_password(uri: str) -> str:
    """Return the password as ``urllib`` reads it, or an empty text."""
    try:
        return urlsplit(uri).password or ""
    except ValueError:
        return ""
