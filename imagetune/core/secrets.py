"""Passwords and tokens, kept out of files, logs, screens and errors: the one redaction for every way out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

HIDDEN = "***"

_LOCAL_SCHEMES = ("sqlite:", "file:")
# Greedy, because a password may hold "/" and "@": better too much hidden than a piece of it shown. The slashes, and the
# scheme with them, may have been forgotten.
_USER_INFO = re.compile(r"(?s)^((?:[A-Za-z][\w.+-]*:)?//+|https?:/?|)(.*)@")
# In the middle of a text: up to the last @ before a space, which no address has.
_USER_INFO_IN_TEXT = re.compile(r"(?<![\w.+-])(?!sqlite:|file:)([a-z][\w.+-]+:/+|https?:/?)([^\s/]\S*)@", re.IGNORECASE)
_WORDS = r"(?:pass|pwd|token|secret|key|sig|cred|auth)"
_SECRET_QUERY = re.compile(rf"([?&][^=&#\s]*{_WORDS}[^=&#\s]*=)([^&#\s'\"]+)", re.IGNORECASE)
_SECRET_HEADER = re.compile(r"(authorization['\"]?\s*[:=]\s*['\"]?(?:(?:basic|bearer)\s+)?)[^\s'\",]+", re.IGNORECASE)
# Of the programs that a store needs; the variables of others are none of ours, and hold ordinary words.
_SECRET_VARIABLE = re.compile(rf"(?:MLFLOW|AWS|AZURE|DATABRICKS|GOOGLE|GCP|PG|MYSQL)\w*{_WORDS}\w*", re.IGNORECASE)
_ADDRESS_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
# Shorter pieces would blot out ordinary words of a message; they still go where the whole user info stands.
_SHORTEST_SECRET = 3


def redact_uri(uri: str) -> str:
    """Return an address with user, password and secret query values replaced by ``***``."""
    if uri.startswith(_LOCAL_SCHEMES):
        return uri
    return _SECRET_QUERY.sub(rf"\g<1>{HIDDEN}", _USER_INFO.sub(rf"\g<1>{HIDDEN}@", uri))


def redact_text(text: str, uri: str = "") -> str:
    """Return a text without secrets: those of an address, of addresses in the text, and of environment variables.

    Args:
        text: Any text, such as the error of a library.
        uri: An address whose user info and secret query values may also stand in the text alone.
    """
    for secret in _list_secrets(uri):
        text = text.replace(secret, HIDDEN)
    text = _USER_INFO_IN_TEXT.sub(rf"\g<1>{HIDDEN}@", text)
    return _SECRET_HEADER.sub(rf"\g<1>{HIDDEN}", _SECRET_QUERY.sub(rf"\g<1>{HIDDEN}", text))


def _list_secrets(uri: str) -> list[str]:
    """Return the secrets of an address and of the environment, the longest first."""
    found = [value for name, value in os.environ.items() if _SECRET_VARIABLE.fullmatch(name)]
    for address in (uri, *(os.environ.get(name, "") for name in _ADDRESS_VARIABLES)):
        found += _list_secrets_of(address)
    # Servers and libraries print a password as it was typed or percent-encoded.
    found += [unquote(secret) for secret in found]
    # The longest first: a secret that holds another one must go as a whole.
    return sorted({secret for secret in found if len(secret) >= _SHORTEST_SECRET and secret != HIDDEN}, key=len)[::-1]


def _list_secrets_of(uri: str) -> Iterator[str]:
    if uri.startswith(_LOCAL_SCHEMES):
        return
    if match := _USER_INFO.match(uri):
        user, colon, password = match[2].partition(":")
        yield from (match[2], password if colon else user)
    yield from (match[2] for match in _SECRET_QUERY.finditer(uri))
    # The password as urllib reads it.
    try:
        yield urlsplit(uri).password or ""
    except ValueError:
        return
