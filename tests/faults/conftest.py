"""The command line and a finished run, as the tests of the commands have them."""

from tests.cli.conftest import _fitted, fitted, imagetune, recipe, workplace  # noqa: F401 - fixtures
