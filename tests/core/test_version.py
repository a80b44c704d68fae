"""The installed distribution, and the other program of the same name."""

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from imagetune.core.version import DISTRIBUTION, name_extra, refuse_namesake
from imagetune.errors import ResourceError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install metadata under the name imagetune, before all other packages."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(command):
        folder = tmp_path / "imagetune-0.1.1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: imagetune\nVersion: 0.1.1\n", "utf-8")
        (folder / "entry_points.txt").write_text(f"[console_scripts]\nimagetune = {command}\n", "utf-8")

    return install


def test_nothing_runs_beside_the_other_program_of_the_name(install, monkeypatch, capsys):
    install("imagetune.main:run")
    with pytest.raises(ResourceError, match=r"imagetune 0\.1\.1.*`pip uninstall imagetune`"):
        refuse_namesake()
    from imagetune.cli.main import run

    assert run(["recipe", "list"]) == 5
    assert capsys.readouterr().err.startswith("error[resources] installation: another program of this name")


def test_a_checkout_that_was_installed_under_the_old_name_runs(install):
    install("imagetune.cli.main:main")
    refuse_namesake()


def test_everything_that_installs_names_our_distribution():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    assert config["metadata"]["name"] == DISTRIBUTION
    assert name_extra("ray") == "pip install 'imagetune-keras[ray]'"
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/*"), *ROOT.glob("imagetune/**/*.py"), ROOT / "Makefile"]
    wrong = [
        (str(path), line)
        for path in [*texts, ROOT / "Dockerfile"]
        if path.is_file()
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if re.search(r"install\b.*\bimagetune(?!-keras)(\[|==|'(?!s )|$)", line)
    ]
    assert not wrong
