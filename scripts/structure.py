"""Measures of a package's structure: files, folders, imports, functions, comments.

    python scripts/structure.py [PATH] [--json]

PATH is the folder of a package, by default `imagetune` beside this script's folder. Nothing of it is imported: the
measures come from its syntax trees and tokens, with the standard library alone.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import re
import statistics
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

MAX_BODY_LINES = 40
MAX_FILE_LINES = 400
# A directive tells a tool something, and a reader nothing, unless a reason follows it.
_DIRECTIVE = re.compile(r"#\s*(noqa(:\s*[A-Z0-9, ]+)?|type:\s*ignore(\[[\w, -]+\])?|fmt:\s*\w+|pragma:.*)\s*")
_LAYOUT = frozenset(
    {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
Graph = Mapping[str, Collection[str]]


@dataclass(frozen=True)
class Import:
    """One module that another one names.

    Attributes:
        source: Dotted name of the module that imports.
        target: Dotted name of the module of the same package that is imported.
        kind: ``module`` where it runs with the module, ``function`` where it waits for a call, ``type_checking`` where
            only type checkers see it.
    """

    source: str
    target: str
    kind: str


@dataclass(frozen=True)
class Structure:
    """The measures of one package, in the order in which they are printed.

    Attributes:
        files: Python files.
        lines: Lines of them.
        root_entries: Files and folders directly in the package.
        largest_folder: The folder with most modules, and how many it has besides ``__init__.py``.
        longest_chain: Modules that import each other in a row, as many as possible; of a circle only one counts.
        circles: Groups of modules that import each other in a ring, whatever kind the imports are.
        package_arrows: Pairs of different top-level packages (or modules), one of which imports the other.
        module_edges: Pairs of modules, one of which imports the other as it is imported itself.
        function_edges: The same for imports that wait for a call, where no such import runs earlier.
        type_checking_edges: The same for imports that only type checkers see.
        functions: Functions and methods, those inside other functions too.
        median_body_lines: Lines of a function's body without its docstring: half of all have at most so many.
        p90_body_lines: Nine in ten have at most so many.
        max_body_lines: The longest.
        functions_over_40_lines: Names of those that are longer.
        files_over_400_lines: Paths of those that are longer.
        comments_per_100_lines: Lines with a comment that is for people, for a hundred lines of code; docstrings and
            empty lines count as neither.
    """

    files: int
    lines: int
    root_entries: int
    largest_folder: tuple[str, int]
    longest_chain: tuple[str, ...]
    circles: tuple[tuple[str, ...], ...]
    package_arrows: int
    module_edges: int
    function_edges: int
    type_checking_edges: int
    functions: int
    median_body_lines: float
    p90_body_lines: int
    max_body_lines: int
    functions_over_40_lines: tuple[str, ...]
    files_over_400_lines: tuple[str, ...]
    comments_per_100_lines: float


def measure_structure(folder: Path) -> Structure:
    """Return the measures of the package in ``folder``.

    Raises:
        ValueError: There is no Python file in it.
        SyntaxError: A file is not Python of this version.
    """
    sources = {path: path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))}
    if not sources:
        raise ValueError(f"{folder} holds no Python files")
    names = {path: _module_name(path, folder) for path in sources}
    trees = {path: ast.parse(source, filename=str(path)) for path, source in sources.items()}
    known = frozenset(names.values())
    imports = {
        found
        for path, tree in trees.items()
        for found in find_imports(tree, names[path], known, is_package=path.name == "__init__.py")
    }
    bodies = {f"{names[path]}.{name}": size for path, tree in trees.items() for name, size in _bodies(tree)}
    lines = {str(path.relative_to(folder)): len(source.splitlines()) for path, source in sources.items()}
    code, comments = map(sum, zip(*(count_lines(source) for source in sources.values()), strict=True))
    pairs = {kind: {(one.source, one.target) for one in imports if one.kind == kind} for kind in _KINDS}
    graph = _graph(imports, known)
    sizes = sorted(bodies.values()) or [0]
    return Structure(
        files=len(sources),
        lines=sum(lines.values()),
        root_entries=sum(1 for entry in folder.iterdir() if not entry.name.startswith((".", "__pycache__"))),
        largest_folder=_largest_folder(sources, folder),
        longest_chain=longest_chain(graph),
        circles=find_circles(graph),
        package_arrows=len({(_top(one.source), _top(one.target)) for one in imports if _crosses(one)}),
        module_edges=len(pairs["module"]),
        function_edges=len(pairs["function"] - pairs["module"]),
        type_checking_edges=len(pairs["type_checking"] - pairs["module"] - pairs["function"]),
        functions=len(bodies),
        median_body_lines=statistics.median(sizes),
        p90_body_lines=sizes[int(0.9 * (len(sizes) - 1))],
        max_body_lines=sizes[-1],
        functions_over_40_lines=tuple(sorted(name for name, size in bodies.items() if size > MAX_BODY_LINES)),
        files_over_400_lines=tuple(sorted(path for path, count in lines.items() if count > MAX_FILE_LINES)),
        comments_per_100_lines=round(100 * comments / max(code, 1), 1),
    )


_KINDS = ("module", "function", "type_checking")


def find_imports(tree: ast.AST, module: str, known: Collection[str], *, is_package: bool) -> Iterator[Import]:
    """Return what a module imports of its own package, wherever the import stands.

    Args:
        tree: Syntax tree of the module.
        module: Its dotted name.
        known: Dotted names of the modules of the package.
        is_package: Whether it is an ``__init__.py``, from which relative imports count differently.
    """
    for node, kind in _import_nodes(tree, "module"):
        for target in _targets(node, module, known, is_package=is_package):
            if target != module:
                yield Import(module, target, kind)


def _import_nodes(node: ast.AST, kind: str) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for guarded in node.body:
            yield from _import_nodes(guarded, "type_checking")
        for other in node.orelse:
            yield from _import_nodes(other, kind)
        return
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield node, kind
    if isinstance(node, Function) and kind == "module":
        kind = "function"
    for inner in ast.iter_child_nodes(node):
        yield from _import_nodes(inner, kind)


def _targets(
    node: ast.Import | ast.ImportFrom, module: str, known: Collection[str], *, is_package: bool
) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)
        return
    base = node.module or ""
    if node.level:
        parts = module.split(".")
        kept = parts[: len(parts) - node.level + is_package]
        base = ".".join([*kept, *([base] if base else [])])
    for alias in node.names:
        # `from package import name` means the module of that name, where there is one.
        inner = f"{base}.{alias.name}"
        yield from (name for name in (inner if inner in known else base,) if name in known)


def find_circles(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Return the strongly connected groups of more than one module, the largest first, names in order."""
    groups = [tuple(sorted(group)) for group in _components(graph) if len(group) > 1]
    return tuple(sorted(groups, key=lambda group: (-len(group), group)))


def longest_chain(graph: Graph) -> tuple[str, ...]:
    """Return the longest row of modules, each of which imports the next; of a circle, its first name stands for all."""
    groups = _components(graph)
    place = {name: index for index, group in enumerate(groups) for name in group}
    best: list[tuple[str, ...]] = []
    # Tarjan's algorithm finishes what is imported before what imports it.
    for index, group in enumerate(groups):
        after = {place[target] for name in group for target in graph[name]} - {index}
        rest = max((best[other] for other in after), key=lambda chain: (len(chain), chain), default=())
        best.append((min(group), *rest))
    return max(best, key=lambda chain: (len(chain), chain), default=())


def _components(graph: Graph) -> list[list[str]]:
    """Return the strongly connected components by Tarjan's algorithm, what is imported first."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for target in sorted(graph[name]):
            if target not in order:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], order[target])
        if low[name] == order[name]:
            start = stack.index(name)
            found.append(stack[start:])
            del stack[start:]

    for name in sorted(graph):
        if name not in order:
            visit(name)
    return found


def count_lines(source: str) -> tuple[int, int]:
    """Return the lines of code and the lines with comments for people; one line can be both."""
    docstrings = _docstring_lines(ast.parse(source))
    code: set[int] = set()
    comments: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if not _DIRECTIVE.fullmatch(token.string):
                comments.add(token.start[0])
        elif token.type not in _LAYOUT:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - docstrings), len(comments)


def _docstring_lines(tree: ast.AST) -> set[int]:
    """Return the lines of strings that stand alone: docstrings, those of attributes too."""
    texts = (node for node in ast.walk(tree) if isinstance(node, ast.Expr) and _is_text(node))
    return {line for node in texts for line in range(node.lineno, (node.end_lineno or 0) + 1)}


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _bodies(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, int]]:
    for node in ast.iter_child_nodes(tree):
        name = prefix
        if isinstance(node, (Function, ast.ClassDef)):
            name = f"{prefix}{node.name}."
        if isinstance(node, Function):
            body = node.body[1:] if _is_text(node.body[0]) else node.body
            yield name[:-1], (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
        yield from _bodies(node, name)


def _module_name(path: Path, folder: Path) -> str:
    parts = [folder.resolve().name, *path.relative_to(folder).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _graph(imports: Collection[Import], known: Collection[str]) -> dict[str, set[str]]:
    graph: defaultdict[str, set[str]] = defaultdict(set, {name: set() for name in known})
    for one in imports:
        graph[one.source].add(one.target)
    return dict(graph)


def _largest_folder(paths: Collection[Path], folder: Path) -> tuple[str, int]:
    counts = Counter(path.parent for path in paths if path.name != "__init__.py")
    largest, count = max(counts.items(), key=lambda item: (item[1], str(item[0])), default=(folder, 0))
    return str(largest.relative_to(folder.parent)), count


def _crosses(one: Import) -> bool:
    return _top(one.source) != _top(one.target)


def _top(module: str) -> str:
    return ".".join(module.split(".")[:2])


def as_text(measures: Structure) -> str:
    """Return the measures as lines of a label and a value; of lists the length, and their items below it."""
    rows = [(name.replace("_", " "), *_shown(name, value)) for name, value in asdict(measures).items()]
    return "\n".join(line for label, value, more in rows for line in (f"{label:<26}{value}", *more))


def _shown(name: str, value: object) -> tuple[str, list[str]]:
    if name == "largest_folder" and isinstance(value, tuple):
        return f"{value[1]} ({value[0]})", []
    if not isinstance(value, tuple):
        return str(value), []
    return str(len(value)), [f"  {part if isinstance(part, str) else ' '.join(part)}" for part in value]


def main() -> None:
    """Print the measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    default = Path(__file__).resolve().parents[1] / "imagetune"
    parser.add_argument("path", nargs="?", type=Path, default=default, help="folder of a package")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    try:
        measures = measure_structure(options.path)
    except (OSError, SyntaxError, ValueError) as error:
        sys.exit(f"structure.py: {error}")
    try:
        print(json.dumps(asdict(measures), indent=2) if options.json else as_text(measures), flush=True)
    except BrokenPipeError:
        # `head` went away. Python would flush the rest at exit, and complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


if __name__ == "__main__":
    main()
