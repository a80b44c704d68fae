"""What every command line has in common."""

import re
from pathlib import Path

import pytest

import imagetune.cli
from imagetune.core.text import CONTROLS


def test_an_empty_argument_is_not_the_working_folder(imagetune, workplace):
    outcome = imagetune("recipe", "validate", "")
    assert outcome.code == 2
    assert "a variable of the command may not be set" in outcome.err


def test_a_path_that_the_system_refuses_is_no_bug(imagetune, workplace):
    outcome = imagetune("report", "x" * 5000)
    assert outcome.code == 5
    assert "File name too long; choose a shorter name" in outcome.err
    assert len(outcome.err) < 400


TERMINAL = "\x1b]0;title\x07\x1b[2J\x9b1m\u202egnp.exe\n second line"


def test_nothing_that_is_typed_or_named_moves_the_cursor(imagetune, workplace):
    (workplace / "r.yaml").write_text('data: {source: x}\n"\\e[2J\\u202E": 1\n')
    for arguments in (
        (TERMINAL,),
        ("fit", TERMINAL),
        ("fit", "r.yaml", f"--{TERMINAL}"),
        ("recipe", "validate", "r.yaml"),
        ("recipe", "validate", "r.yaml", "-o", TERMINAL),
        ("recipe", "copy", TERMINAL, "."),
        ("predict", TERMINAL, TERMINAL),
        ("report", TERMINAL, "--debug"),
    ):
        outcome = imagetune(*arguments)
        assert outcome.code in (2, 9)
        shown = outcome.out + outcome.err
        assert "\\u001b" in shown or "\\x1b" in shown
        assert not CONTROLS.search(shown.replace("\n", ""))
        # A traceback has lines of its own.
        assert "--debug" in arguments or not any(line.startswith(" second") for line in shown.splitlines())


def test_results_keep_their_values_in_json_and_yaml(imagetune, workplace):
    (workplace / "r.yaml").write_text(
        'data: {source: x, classes: ["\\e[2J", "a\\u202Eb", "tab\\tbed", plain]}\ncard: {license: "two\\nlines"}\n'
    )
    shown = imagetune("recipe", "show", "r.yaml").out
    assert not CONTROLS.search(shown.replace("\n", ""))
    (workplace / "again.yaml").write_text(shown)
    assert imagetune("recipe", "diff", "r.yaml", "again.yaml").out == ""


def test_there_is_one_way_out_to_the_screen():
    folder = Path(imagetune.cli.__file__).parent
    direct = [
        f"{path.name}: {line.strip()}"
        for path in folder.rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"click\.s?echo\(|\bprint\(|console\.print\(|std(out|err)\.write", line)
    ]
    assert sorted(direct) == [
        "lines.py: click.echo(make_visible(str(line)), err=err)",
        "lines.py: click.echo(wrap_line(make_visible(line), width))",
        "lines.py: console.print(line, soft_wrap=True, markup=False)",
    ]


@pytest.mark.parametrize(
    ("words", "target"),
    [
        (("predict", "run", "images", "--csv"), "run/model.keras"),
        (("predict", "run", "images", "--csv"), "run/splits.csv"),
        (("predict", "run", "images", "--csv"), "run/predictions/test.csv"),
        (("compare", "run", "run", "--page"), "run/report.html"),
        (("data", "check", "images", "--page"), "recipe.yaml"),
        (("data", "preview", "recipe.yaml", "--out"), "recipe.yaml"),
    ],
)
def test_an_output_replaces_no_file_of_a_run_and_none_of_another_kind(imagetune, workplace, words, target):
    for name in ("run/recipe.yaml", "run/status.json", target, "recipe.yaml"):
        (workplace / name).parent.mkdir(parents=True, exist_ok=True)
        (workplace / name).write_text("kept")
    outcome = imagetune(*words, target)
    assert outcome.code == 2
    assert "choose another path" in outcome.err
    assert (workplace / target).read_text() == "kept"


def test_a_folder_in_which_nothing_can_be_made_is_no_bug(imagetune, images):
    outcome = imagetune("data", "check", images, "--page", "/proc/page.html")
    assert outcome.code == 5
    assert "no file can be made in it" in outcome.err
