import ast
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from scripts.structure import count_lines, find_circles, find_imports, longest_chain, measure_structure  # noqa: E402

FILES = {
    "__init__.py": '"""A package."""\n',
    "errors.py": "class Wrong(Exception):\n    pass\n",
    "data/__init__.py": "",
    "data/rows.py": "from shop.errors import Wrong\nfrom . import tables\n",
    "data/tables.py": "def read():\n    from shop.data.rows import Wrong\n    return Wrong\n",
    "cli/__init__.py": "",
    "cli/main.py": (
        "from typing import TYPE_CHECKING\n"
        "import shop.data.tables\n"
        "if TYPE_CHECKING:\n"
        "    from shop.errors import Wrong\n"
        "def main():\n"
        '    """Do it."""\n' + "    print()\n" * 41 + "    # The end is near.\n" * 400
    ),
}


@pytest.fixture
def shop(tmp_path):
    for name, source in FILES.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    (tmp_path / "shop" / "__pycache__").mkdir()
    return tmp_path / "shop"


def test_files_folders_and_lines_are_counted(shop):
    measures = measure_structure(shop)
    assert (measures.files, measures.lines) == (7, 455)
    assert measures.root_entries == 4
    assert measures.largest_folder == ("shop/data", 2)
    assert measures.files_over_400_lines == (str(Path("cli/main.py")),)


def test_imports_are_found_wherever_they_stand(shop):
    measures = measure_structure(shop)
    assert (measures.module_edges, measures.function_edges, measures.type_checking_edges) == (3, 1, 1)
    assert measures.package_arrows == 3
    assert measures.circles == (("shop.data.rows", "shop.data.tables"),)
    assert measures.longest_chain == ("shop.cli.main", "shop.data.rows", "shop.errors")


def test_bodies_count_without_their_docstring(shop):
    measures = measure_structure(shop)
    assert (measures.functions, measures.max_body_lines, measures.median_body_lines) == (2, 41, 21.5)
    assert measures.functions_over_40_lines == ("shop.cli.main.main",)


def test_comments_are_distinguished_from_docstrings_and_directives():
    source = '"""Text."""\n\n# A reason.\nx = 1  # noqa: E501\ny = """\n# no comment\n"""  # a reason\n'
    assert count_lines(source) == (4, 2)


def test_relative_imports_count_from_the_package():
    known = {"shop", "shop.data", "shop.data.rows", "shop.errors"}
    tree = ast.parse("from .rows import read\nfrom .. import errors, nothing\nfrom ... import far\nimport os\n")
    found = find_imports(tree, "shop.data", known, is_package=True)
    assert sorted(one.target for one in found) == ["shop", "shop.data.rows", "shop.errors"]


def test_a_circle_counts_once_in_a_chain():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"d"}}
    assert find_circles(graph) == (("b", "c"),)
    assert longest_chain(graph) == ("a", "b", "d")


def test_the_command_prints_lines_or_json(shop):
    command = [sys.executable, str(ROOT / "scripts" / "structure.py"), str(shop)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "longest chain             3\n  shop.cli.main\n" in text
    printed = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == json.loads(json.dumps(asdict(measure_structure(shop))))


def test_a_reader_that_goes_away_gets_no_traceback(shop):
    command = [sys.executable, str(ROOT / "scripts" / "structure.py"), str(shop)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as printing:
        printing.stdout.close()
        assert (printing.wait(60), printing.stderr.read()) == (141, b"")


def test_a_folder_without_python_is_refused(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "structure.py"), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "holds no Python files" in ended.stderr
