"""Tables of endless lines, of a million columns, of no text, and Parquet files that hold more than they seem to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from tests.faults.attack.case import Case, Room
from tests.faults.attack.images import make_sparse

HEAD = b"path,label\n"
ROWS = b"".join(b"%d.png,%s\n" % (place, (b"cat", b"dog")[place % 2]) for place in range(12))
ENDS = frozenset({0, 3})


def cases() -> Iterator[Case]:
    """Yield each table for ``data check`` and ``evaluate --data``."""
    for name, (suffix, write) in TABLES.items():
        for taker in ("check", "evaluate"):
            yield Case(f"tables/{taker}-{name}", partial(_take, taker, f"x.{suffix}", write), codes=ENDS)


def _take(taker: str, name: str, write: Callable[[Path], None], room: Room) -> list[str | Path]:
    for place in range(12):
        Image.new("RGB", (32, 32), (20 * place, 90, 10)).save(room.input / f"{place}.png")
    table = room.input / name
    write(table)
    return ["data", "check", table] if taker == "check" else ["evaluate", room.shared / "run", "--data", table]


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _write_large(begin: bytes, size: int, path: Path) -> None:
    make_sparse(path, size)
    with path.open("r+b") as file:
        file.write(begin)


def _write_parquet(make: Callable[[], dict[str, object]], path: Path, *, spoil: int = 0) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(make()), path, compression="zstd")
    if spoil:
        content = bytearray(path.read_bytes())
        content[-spoil : -spoil + 4] = b"\xff\xff\xff\x7f"
        path.write_bytes(content)


def _make_columns() -> dict[str, object]:
    return {"path": [f"{place}.png" for place in range(12)], "label": ["cat", "dog"] * 6}


def _make_bad_text() -> dict[str, object]:
    import pyarrow

    parts = pyarrow.py_buffer(b"\0\0\0\0\2\0\0\0"), pyarrow.py_buffer(b"\xff\xfe")
    return {"path": ["0.png"], "label": pyarrow.StringArray.from_buffers(1, *parts)}


def _make_repeated() -> dict[str, object]:
    import pyarrow

    labels = pyarrow.DictionaryArray.from_arrays([0, 1] * 100_000, ["x" * 500_000, "y"])
    return {"path": pyarrow.DictionaryArray.from_arrays([0] * 200_000, ["0.png"]), "label": labels}


TEXTS: dict[str, bytes] = {
    "empty": b"",
    "header-only": HEAD,
    "zero-in-path": HEAD + ROWS + b"a\0b.png,cat\n",
    "zero-in-label": HEAD + ROWS + b"0.png,c\0t\n",
    "surrogate": HEAD + ROWS + b"0.png,\xed\xa0\x80\n",
    "latin-1": HEAD + ROWS + b"0.png,caf\xe9\n",
    "long-name": HEAD + ROWS + b"x" * 300 + b".png,cat\n",
    "long-path": HEAD + ROWS + b"x/" * 50_000 + b".png,cat\n",
    "long-label": HEAD + ROWS + b"0.png," + b"x" * 1_000_000 + b"\n",
    "long-cell": HEAD + ROWS + b"0.png," + b"x" * 100_000_000 + b"\n",
    "open-quote": HEAD + ROWS + b'0.png,"' + b"x\n" * 50_000_000,
    "commas": b"," * 50_000_000,
    "columns": b",".join(b"c%d" % place for place in range(1_000_000)) + b"\n",
    "cells": HEAD + b"," * 5_000_000 + b"\n" + ROWS,
    "blank-lines": HEAD + ROWS + b"\n" * 30_000_000,
    "blank-beginning": b"\n" * 30_000_000 + HEAD + ROWS,
    "many-rows": HEAD + b"a,b\n" * 20_000_000,
    "no-user": HEAD + ROWS + b"~nosuchuser/x.png,cat\n",
    "outside": HEAD + ROWS + b"../../../../etc/passwd,cat\n/dev/zero,dog\n",
    "formula": HEAD + ROWS + b'0.png,"=HYPERLINK(""http://x"",""y"")"\n',
    "escapes": HEAD + ROWS + b"0.png,\x1b[2J\x1b]0;x\x07\n",
    "random-utf-16": b"\xff\xfe" + bytes(range(256)) * 100,
    "utf-32": b"\xff\xfe\0\0" + b"\xff" * 4000,
}
TABLES: dict[str, tuple[str, Callable[[Path], None]]] = {
    **{name: ("csv", partial(_write, content)) for name, content in TEXTS.items()},
    "tsv": ("tsv", partial(_write, HEAD + ROWS)),
    "zeros": ("csv", partial(_write_large, b"", 3 << 30)),
    "one-line": ("csv", partial(_write_large, HEAD, 2_000_000_000)),
    "no-parquet": ("parquet", partial(_write, HEAD + ROWS)),
    "parquet-zeros": ("parquet", partial(_write_large, b"PAR1", 3 << 30)),
    "parquet-bad-text": ("parquet", partial(_write_parquet, _make_bad_text)),
    "parquet-repeated": ("parquet", partial(_write_parquet, _make_repeated)),
    "parquet-numbers": ("parquet", partial(_write_parquet, lambda: {"path": [1, 2], "label": [0.5, None]})),
    "parquet-long": ("parquet", partial(_write_parquet, lambda: {"path": ["x" * (300 << 20)], "label": ["cat"]})),
    "parquet-columns": ("parquet", partial(_write_parquet, lambda: {f"c{place}": [1] for place in range(12_000)})),
    **{
        f"parquet-footer-{place}": ("parquet", partial(_write_parquet, _make_columns, spoil=place))
        for place in (8, 12, 60, 200, 400, 700)
    },
}
