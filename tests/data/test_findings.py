from __future__ import annotations

import ast
from pathlib import Path

import imagetune
from imagetune.cli.render.audit import format_codes
from imagetune.data.audit import audit, outliers, shortcuts
from imagetune.data.findings import CODES, Finding

DATA = Path(imagetune.__file__).parent / "data"


def codes_in_the_source() -> set[str]:
    """The constant first arguments of every `Finding(...)`, and the keys of tables that codes come from."""
    found = {*outliers._WORDS, *shortcuts._TITLES, *audit._NOTES, *audit._CONFLICTS}
    for path in DATA.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") in ("Finding", "_build_leak", "_build_conflict")
                and node.args
            ):
                first = node.args[0]
                found |= {first.value} if isinstance(first, ast.Constant) else set()
    return found


def test_every_code_is_in_the_table():
    assert codes_in_the_source() - set(CODES) == set()


def test_the_table_has_no_code_that_nothing_finds():
    source = "\n".join(path.read_text() for path in DATA.rglob("*.py") if path.name != "findings.py")
    assert [code for code in CODES if f'"{code}"' not in source] == []


def test_each_code_is_one_line_with_severity_and_meaning():
    lines = format_codes()
    assert len(lines) == len(CODES)
    assert any(line.split()[:2] == ["blurred", "warning"] for line in lines)
    assert any("data.audit.on_leak" in line for line in lines)


def test_a_finding_in_json_counts_its_paths():
    values = Finding("blurred", "warning", "2 images blurred", paths=("a", "b"), metrics={"x": 0.5}).to_dict()
    assert (values["count"], values["metrics"], values["paths"]) == (2, {"x": 0.5}, ["a", "b"])
