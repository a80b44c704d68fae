import sys

import pytest
from plugin_packages import EXAMPLE, install_example, install_module

from imagetune.core.plugins import (
    AUGMENTATIONS,
    BACKBONES,
    LOSSES,
    TRACKERS,
    convert_plugin_errors,
    describe_plugin_package,
    find_name_clash,
    list_plugin_names,
    load_plugin,
)
from imagetune.errors import RecipeError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Install a package of one module with one loss, and put it on the path."""

    def install(name, source, *, point="odd_loss"):
        folder = install_module(tmp_path / name, name, "imagetune.losses", {point: "loss"}, source)
        monkeypatch.syspath_prepend(folder)

    return install


def test_names_are_listed_without_an_import(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(install_example(tmp_path))
    before = set(sys.modules)
    names = [list_plugin_names(kind) for kind in (BACKBONES, LOSSES, AUGMENTATIONS, TRACKERS)]
    assert names == [("tiny_net",), ("poly_loss",), ("small_shifts",), ("csv_log",)]
    assert describe_plugin_package(BACKBONES, "tiny_net") == "imagetune-example 1.2"
    assert not [name for name in set(sys.modules) - before if name.startswith("imagetune_example")]


def test_nothing_is_installed_by_default():
    assert list_plugin_names(LOSSES) == ()
    assert describe_plugin_package(LOSSES, "odd_loss") is None
    with pytest.raises(RecipeError, match="there is no plug-in loss 'odd_loss'; installed plug-ins: none"):
        load_plugin(LOSSES, "odd_loss")


def test_a_plugin_is_loaded_when_asked_for(package):
    package("odd-one", "loss = 3")
    assert load_plugin(LOSSES, "odd_loss") == 3


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import not_there", "ModuleNotFoundError: No module named 'not_there'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("los = 3", "AttributeError: module 'broken_{}' has no attribute 'loss'"),
    ],
)
def test_a_plugin_that_fails_names_package_entry_point_and_reason(package, source, reason, request):
    number = request.node.callspec.indices["source"]
    package(f"broken-{number}", source)
    with pytest.raises(RecipeError) as caught:
        load_plugin(LOSSES, "odd_loss")
    whose = f"the package broken-{number} 0.3 (entry point odd_loss = broken_{number}:loss)"
    assert caught.value.what == f"the loss 'odd_loss' of {whose} fails: {reason.format(number)}"
    assert (caught.value.where, caught.value.exit_code) == ("train.loss", 2)


def test_errors_of_ours_pass_through_a_plugin():
    with pytest.raises(RecipeError, match="^ours$"), convert_plugin_errors(LOSSES, "any"):
        raise RecipeError("ours")


def test_two_packages_with_one_name_are_refused_with_both_named(package):
    package("first-one", "loss = 1")
    package("second-one", "loss = 2")
    with pytest.raises(RecipeError, match="twice: by the package second-one 0.3 .* and by the package first-one"):
        load_plugin(LOSSES, "odd_loss")


def test_a_name_of_ours_is_refused_with_both_named(package):
    package("focal-again", "loss = 1", point="focal")
    clash = find_name_clash(LOSSES, "focal", ("focal", "auto"))
    assert clash is not None
    assert "'focal' is offered twice: by imagetune itself and by the package focal-again 0.3" in clash
    assert find_name_clash(LOSSES, "auto", ("focal", "auto")) is None


def test_the_documentation_shows_the_example_package_in_full():
    page = (EXAMPLE.parents[1] / "docs" / "plugins.md").read_text(encoding="utf-8")
    shown = [path for path in EXAMPLE.rglob("*") if path.suffix in (".py", ".toml") and path.name != "__init__.py"]
    assert len(shown) == 5
    for path in shown:
        assert path.read_text(encoding="utf-8").rstrip() in page
