"""Mutated recipes, given to `recipe validate` in this process: `python -m tests.faults.attack.mutated_recipes 2000`.

A mutation follows from its number alone, so that a failure can be repeated.
"""

from __future__ import annotations

import contextlib
import io
import random
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

MAX_SECONDS = 5.0
MAX_MEGABYTES = 500.0

VALUES = (
    *("", "~", "null", "true", "-1", "0", "1e400", ".nan", "-.inf", "1" * 5000, "0x" + "f" * 5000, "1_000", "1e15"),
    *(
        "1000000000000000",
        "-0.0",
        "'",
        '"',
        "[",
        "{",
        "[]",
        "{}",
        "[[[]]]",
        "{a: {b: {c: 1}}}",
        "*x",
        "&x 1",
        "!!int 3",
    ),
    *('"\\0"', '"\\e[2J"', '"\\ud800"', '"\\U0001F600"', "\x1b[2J", "\u202eabc", "é" * 200, "a/" * 3000, "../" * 50),
    *(
        "!!python/object/apply:os.system [touch canary]",
        "!!python/name:os.system",
        "!<tag:x> 1",
        "%TAG ! x",
        "---",
        "...",
    ),
    *("{search: choice, values: []}", "{search: int, low: 0, high: 1e9}", "{search: uniform, low: 1, high: 0}"),
    *("{search: choice, values: [{search: int, low: 1, high: 2}]}", "{search: int, low: 1, high: 9, when: {a: 1}}"),
    *(
        "http:ann:pw@host",
        "ftp://x",
        "/dev/zero",
        "-",
        "|\n      text",
        ">\n   folded",
        "@x",
        "`x",
        "? x",
        ": y",
        "# c",
    ),
    *("[{Blur: {blur_limit: 1000000001}}]", "[{Resize: {height: 1000000, width: 1000000}}]", "[{Lambda: {}}]"),
    *("[{OneOf: {transforms: []}}]", "[{GlassBlur: {iterations: 100000}}]", "[{RandomScale: {scale_limit: 10000}}]"),
)


def list_bases() -> list[str]:
    """Return the recipes that mutations begin with: the shipped ones, and one with most sections."""
    from imagetune.recipe.shipped import list_shipped_recipes

    rich = """\
name: rich
data: {source: x, image_size: [64, 96], split: {val: 0.1, test: 0.1}, classes: &names [a, b, no, 007]}
model: {backbone: efficientnet_lite0, head: {hidden: [8], dropout: 0.1}}
train:
  stages:
    - {name: head, unfreeze: none, epochs: 2, learning_rate: {search: log_uniform, low: 1e-4, high: 1e-2}}
    - {name: top, unfreeze: last 3 blocks, epochs: 2, learning_rate: 1e-4, early_stopping: &stop {patience: 1}}
    - {name: all, unfreeze: all, epochs: 2, learning_rate: 1e-4, early_stopping: *stop}
  optimizer: {name: adamw, weight_decay: {search: choice, values: [0.0, 1e-4]}}
  class_weights: {a: 1.0, b: 2.0}
evaluate: {require: [{metric: accuracy, value: 0.5}], costs: [[0.0, 1.0], [1.0, 0.0]], robustness: {severities: [1]}}
tracking: {uri: "http://ann:pw@host:5000", experiment: e, tags: {a: b}}
card: {owners: [a], license: MIT}
search: {algorithm: bayesian, trials: 5, budget: {hours: 1.0}}
"""
    return [rich, *(path.read_text(encoding="utf-8") for path in list_shipped_recipes().values())]


def mutate(number: int, bases: Sequence[str]) -> bytes:
    """Return the recipe of a number: one of the bases with one to five mutations."""
    chance = random.Random(number)
    text = chance.choice(bases)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 5))):
        text = chance.choice(MUTATIONS)(text, chance)[:1_200_000]
    content = text.encode("utf-8", "surrogatepass")
    return _flip_bytes(content, chance) if chance.random() < 0.2 else content


def _replace_value(text: str, chance: random.Random) -> str:
    places = [*re.finditer(r"(?<=[:,\[] )[^\s,\[\]{}#][^,\[\]{}\n#]*", text)]
    if not places:
        return text
    place = chance.choice(places)
    return text[: place.start()] + chance.choice(VALUES) + text[place.end() :]


def _replace_key(text: str, chance: random.Random) -> str:
    places = [*re.finditer(r"[A-Za-z_]\w*(?=:)", text)]
    if not places:
        return text
    place, other = chance.choice(places), chance.choice(places)
    return (
        text[: place.start()]
        + chance.choice((other[0], other[0][:-1], "<<", "'a b'", "?", "x" * 300))
        + text[place.end() :]
    )


def _swap_lines(text: str, chance: random.Random) -> str:
    lines = text.split("\n")
    first, second = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return "\n".join(lines)


def _repeat(text: str, chance: random.Random) -> str:
    start = chance.randrange(len(text) + 1)
    piece = text[start : start + chance.randint(1, 80)]
    return text[:start] + piece * chance.choice((2, 3, 10, 100, 3000)) + text[start:]


def _cut(text: str, chance: random.Random) -> str:
    start = chance.randrange(len(text) + 1)
    return text[:start] + text[start + chance.choice((1, 5, 50, len(text))) :]


def _insert(text: str, chance: random.Random) -> str:
    start = chance.randrange(len(text) + 1)
    return text[:start] + chance.choice(VALUES) + text[start:]


def _indent(text: str, chance: random.Random) -> str:
    lines = text.split("\n")
    place = chance.randrange(len(lines))
    lines[place] = chance.choice((" ", "\t", "  - ", "    ")) + lines[place]
    return "\n".join(lines)


def _add_section(text: str, chance: random.Random) -> str:
    key = chance.choice(("data", "model", "train", "evaluate", "tracking", "card", "search", "seed", "name", "zzz"))
    return f"{text}\n{key}: {chance.choice(VALUES)}\n"


def _join(text: str, chance: random.Random) -> str:
    return text + chance.choice(("\n", "\n---\n", "")) + chance.choice(list_bases())


MUTATIONS = (
    *(_replace_value,) * 12,
    *(_replace_key, _swap_lines, _repeat, _cut, _insert, _insert, _indent, _add_section, _join),
)


def _flip_bytes(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def meet(numbers: Sequence[int], folder: Path) -> tuple[list[str], Counter[int], float]:
    """Validate the recipes of some numbers; return what was wrong, how often each exit code came, and the longest time.

    Args:
        numbers: The numbers of the mutations.
        folder: An empty folder.
    """
    from imagetune.cli.main import run

    bases, wrong, codes, longest = list_bases(), [], Counter[int](), 0.0
    _validate(run, folder, bases[0].encode())
    idle = _peak_megabytes()
    for number in numbers:
        code, seconds, output = _validate(run, folder, mutate(number, bases))
        codes[code] += 1
        longest = max(longest, seconds)
        if code not in (0, 2) or seconds > MAX_SECONDS or _peak_megabytes() - idle > MAX_MEGABYTES:
            wrong.append(f"{number}: exit {code} after {seconds:.1f} s: {output[-300:]!r}")
            idle = max(idle, _peak_megabytes() - MAX_MEGABYTES / 2)
    if left := sorted(path.name for path in folder.iterdir() if path.name != "r.yaml"):
        wrong.append(f"left behind: {left}")
    return wrong, codes, longest


def _validate(run, folder: Path, content: bytes) -> tuple[int, float, str]:
    path = folder / "r.yaml"
    path.write_bytes(content)
    output, began = io.StringIO(), time.perf_counter()
    with contextlib.chdir(folder), contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = run(["recipe", "validate", str(path)])
    return code, time.perf_counter() - began, output.getvalue()


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Validate as many mutated recipes as the first argument says, and print how they ended."""
    count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        before = _peak_megabytes()
        wrong, codes, longest = meet(range(first, first + count), Path(folder))
    print(*wrong, sep="\n")
    spread = ", ".join(f"{code}: {number}" for code, number in sorted(codes.items()))
    taken = f"{time.perf_counter() - began:.0f} s, the longest {longest:.2f} s, peak memory {_peak_megabytes():.0f} MB"
    print(f"{count} recipes in {taken} (at the start {before:.0f}); {len(wrong)} wrong; exit codes {spread}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
