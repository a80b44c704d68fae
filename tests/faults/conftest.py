"""The command line and a finished run, as the tests of the commands have them; and processes to inject faults into."""

import pytest
from colours import RECIPE
from once import made_once

from tests.cli.conftest import _fitted, fitted, imagetune, recipe, workplace  # noqa: F401 - fixtures
from tests.faults.attack.catalog import make_shared
from tests.faults.attack.keeper import Watcher
from tests.faults.commands import Commands


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """What the cases of the attack share: images, a recipe and a finished run."""
    return made_once(tmp_path_factory, "attack", make_shared)


@pytest.fixture(scope="session")
def watcher():
    """A process that has imported the program and runs command lines in forks."""
    watcher = Watcher.start()
    yield watcher
    watcher.stop()


@pytest.fixture
def commands(watcher, workplace, images):  # noqa: F811 - the fixture from above
    """Command lines in processes of their own, in a folder with the recipe ``colours.yaml``."""
    (workplace / "colours.yaml").write_text(RECIPE.format(source=images), encoding="utf-8")
    return Commands(watcher, workplace)
