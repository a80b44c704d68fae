"""Consoles and pipes whose encoding lacks what is printed."""

import json
import os
import shutil

import pytest

# Not ascii: there Click writes UTF-8, as it takes the locale for one that nobody has set.
ENCODINGS = ("cp1252", "latin-1", "cp437", "utf-8", "utf-16")


@pytest.fixture
def cats(workplace, images):
    for name, source in (("猫", "blue"), ("犬😀", "red")):
        shutil.copytree(images / source, workplace / "pets" / name)
    return workplace / "pets"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_names_that_the_encoding_of_the_output_lacks_are_escaped(cats, start, encoding):
    process = start("data", "check", cats, env={**os.environ, "PYTHONIOENCODING": encoding}, encoding=encoding)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    shown = "猫" if encoding.startswith("utf") else r"\u732b"
    assert shown in out


def test_json_stays_json_in_any_encoding(cats, start):
    process = start("data", "check", cats, "--json", env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    out, _ = process.communicate(timeout=120)
    assert "猫" not in out
    assert {"猫", "犬😀"} <= set(json.dumps(json.loads(out), ensure_ascii=False).replace('"', " ").split())


def test_a_file_name_that_is_no_text_is_printed_in_an_error(start, workplace):
    process = start("recipe", "show", os.fsdecode(b"caf\xe9.yaml"))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert r"caf\udce9.yaml: no such file" in err
