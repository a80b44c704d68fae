"""What a server is told of a run, and the token that it asks for."""

import json
import subprocess
import sys

import pytest

from imagetune.commands.serve import describe_run, read_token, serve
from imagetune.errors import ModelFileError, RecipeError
from imagetune.run_folder.folder import RunFolder
from imagetune.serving.settings import ServerSettings

TOKEN = "a-token-of-some-length"


def test_a_run_is_described_by_its_card_and_its_test(tmp_path):
    splits = {"test": {"images": 9, "metrics": {"f1": {"value": 0.9, "low": 0.8, "high": None}}}}
    (tmp_path / "evaluation.json").write_text(json.dumps({"splits": splits}))
    (tmp_path / "model_card.md").write_text("# Card")
    described = describe_run(RunFolder(tmp_path), "flowers")
    assert described["metrics"] == {"f1": {"value": 0.9, "low": 0.8, "high": None}}
    assert (described["id"], described["split"], described["card"]) == ("flowers", "test", "# Card")


def test_a_run_without_a_test_has_no_metrics(tmp_path):
    described = describe_run(RunFolder(tmp_path), "flowers")
    assert (described["metrics"], described["split"], described["card"]) == ({}, None, None)


def test_a_folder_that_is_no_run_is_not_served(tmp_path):
    with pytest.raises(ModelFileError, match="no trained model"):
        serve(str(tmp_path), ServerSettings())


def test_a_token_is_the_only_word_of_its_file(tmp_path):
    file = tmp_path / "token"
    file.write_text(f" {TOKEN}\n")
    assert read_token(file) == TOKEN


@pytest.mark.parametrize("text", ["", "\n", "short", "two words of some length", "ümläuts-of-some-length-here"])
def test_what_could_be_guessed_or_not_be_sent_is_no_token(tmp_path, text):
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(RecipeError, match="holds no token"):
        read_token(file)


@pytest.mark.parametrize("place", ["none", "."])
def test_a_token_file_that_cannot_be_read_is_named(tmp_path, place):
    with pytest.raises(RecipeError, match="can't be read") as raised:
        read_token(tmp_path / place)
    assert raised.value.where == str(tmp_path / place)


def test_settings_do_not_show_the_token():
    assert TOKEN not in repr(ServerSettings(token=TOKEN))


def test_the_process_that_speaks_http_loads_no_keras():
    # It answers health whatever the model does, starts at once, and is small.
    code = "import sys, imagetune.commands.serve; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
