"""Standard output and error in whatever encoding they have."""

from __future__ import annotations

import codecs
import io
import json
import sys

_ESCAPE = "imagetune.escape"


def escape_unencodable_text() -> None:
    r"""Make standard output and error escape what their encoding doesn't have, as ``\u732b``, instead of failing.

    A pipe on Windows is in cp1252, an old locale in latin-1, and names of files may be no text at all. The escape is
    that of JSON, whose lines stay valid: such characters stand in its strings alone.
    """
    codecs.register_error(_ESCAPE, _escape)
    for stream in (sys.stdout, sys.stderr):
        # None in a program without a console; something else where a test or a notebook has put its own.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPE)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
