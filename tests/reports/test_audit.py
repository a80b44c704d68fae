from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path

import browser
import numpy as np
import pytest
from browser import browse, needs_browser
from PIL import Image
from planted import CLASSES, encoded, plant, scene

from imagetune.data.audit.audit import audit_catalog
from imagetune.data.sources.read import read_catalog
from imagetune.recipe.sections.data import DataConfig
from imagetune.reports import audit
from imagetune.reports.audit import render_audit_page, write_audit_page

ConfigFor = Callable[..., DataConfig]
CLIPART = Path(__file__).parents[2] / "recipes" / "clipart"


def page_of(config: DataConfig) -> str:
    catalog = read_catalog(config)
    return render_audit_page(catalog, audit_catalog(catalog, config), config)


@pytest.fixture(scope="module")
def dirty(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("page") / "dirty"
    return plant(root, [scene(seed) for seed in range(60)], each=2, near=2).root


def section(page: str, code: str) -> str:
    (found,) = re.findall(rf'<section id="{code}-\d+".*?</section>', page, re.DOTALL)
    return found


def test_every_finding_has_its_words_and_images(dirty: Path, config_for: ConfigFor) -> None:
    config = config_for(dirty)
    catalog = read_catalog(config)
    audit = audit_catalog(catalog, config)
    page = render_audit_page(catalog, audit, config)
    for finding in audit.findings:
        words = section(page, finding.code)
        assert f'<span class="tag {finding.severity}">{finding.severity}</span> <code>{finding.code}</code>' in words
        for text in (finding.title[1:], finding.hint[1:]):  # a sentence begins with a capital
            assert text.replace("&", "&amp;").replace("'", "&#39;") in words
        assert not finding.paths or words.count("<figure>") > 0
    for label in CLASSES:
        assert f'<th scope="row">{label}</th>' in page


def test_groups_stand_side_by_side_and_conflicts_say_their_labels(dirty: Path, config_for: ConfigFor) -> None:
    page = page_of(config_for(dirty))
    words = section(page, "conflict")
    assert words.count('<div class="group"') == 2
    for group in words.split('<div class="group"')[1:]:
        assert len(set(re.findall(r"<b>(\w+)</b>", group)) & set(CLASSES)) == 2
    assert section(page, "near-duplicates").count('<div class="group"') >= 8


def test_a_file_that_cannot_be_decoded_shows_the_reason(dirty: Path, config_for: ConfigFor) -> None:
    words = section(page_of(config_for(dirty)), "bad-image")
    assert words.count("<img") == 0
    assert words.count('<div class="gone">') == 4
    assert words.count("<b>") == 0  # the reason is in the image's place


def test_a_clean_source_has_a_page_too(tmp_path: Path, config_for: ConfigFor) -> None:
    for place, label in enumerate(("cat", "dog", "owl")):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(12):
            (tmp_path / "set" / label / f"{number}.jpg").write_bytes(encoded(scene(100 * place + number)))
    page = page_of(config_for(tmp_path / "set"))
    assert "<h2>No findings</h2>" in page
    assert "<img" not in page


def test_errors_come_first(tmp_path: Path, config_for: ConfigFor) -> None:
    for split, start in (("train", 0), ("test", 50)):
        for place, label in enumerate(("a", "b")):
            folder = tmp_path / "set" / split / label
            folder.mkdir(parents=True)
            for number in range(3):
                (folder / f"{number}.jpg").write_bytes(encoded(scene(start + 10 * place + number)))
    (tmp_path / "set" / "test" / "a" / "leak.jpg").write_bytes(encoded(scene(1)))
    (tmp_path / "set" / "train" / "a" / "empty.jpg").touch()
    page = page_of(config_for(tmp_path / "set"))
    severities = re.findall(r'<section id="[^"]*" class="(\w+)">', page)
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert severities[0] == "error"
    assert "errors stop a training" in page


def test_names_are_text_and_not_markup(tmp_path: Path, config_for: ConfigFor) -> None:
    for label in ("<b>bold</b>", "plain & simple"):
        folder = tmp_path / "set" / label.replace("/", "_")
        folder.mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.full((20, 20, 3), 90 * number, np.uint8)).save(folder / f"<i>{number}.png")
    (tmp_path / "set" / "plain & simple" / "<script>alert(1)<script>.png").touch()
    page = page_of(config_for(tmp_path / "set"))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_page_of_thousands_of_findings_stays_small(tmp_path: Path, config_for: ConfigFor, monkeypatch) -> None:
    monkeypatch.setattr(audit, "IMAGE_BYTES", 30_000)
    for label in ("a", "b"):
        (tmp_path / "set" / label).mkdir(parents=True)
    for number in range(30):
        image = encoded(scene(number))
        (tmp_path / "set" / "a" / f"{number}.jpg").write_bytes(image)
        (tmp_path / "set" / "b" / f"{number}.jpg").write_bytes(image)
    for number in range(600):
        (tmp_path / "set" / "a" / f"bad{number}.jpg").write_bytes(b"x")
    page = page_of(config_for(tmp_path / "set"))
    assert len(page) < 250_000
    assert "further groups not shown" in page
    assert "And 400 more" in section(page, "bad-image")


def test_the_page_of_the_shipped_set_is_light(config_for: ConfigFor) -> None:
    assert len(page_of(config_for(CLIPART)).encode()) < 2_000_000


@needs_browser
@pytest.mark.parametrize("width", [1200, 500], ids=["wide", "phone"])
def test_a_browser_draws_it_without_a_complaint(dirty: Path, config_for: ConfigFor, tmp_path: Path, width: int) -> None:
    config = config_for(dirty)
    catalog = read_catalog(config)
    page = tmp_path / "page.html"
    write_audit_page(catalog, audit_catalog(catalog, config), config, page)
    assert page.stat().st_size < 5_000_000
    seen = browse(page, width=width)
    assert seen.console == ()
    assert seen.images == seen.drawn > 20
    assert seen.page_width <= seen.window_width


@needs_browser
def test_the_browser_reports_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<img src="data:image/png;base64,AAAA"><div style="width:3000px">x</div><script>nothing()</script>')
    seen = browse(page)
    assert any("nothing is not defined" in message for message in seen.console)
    assert (seen.images, seen.drawn) == (1, 0)
    assert seen.page_width > seen.window_width


@pytest.mark.parametrize(("required", "skipped"), [("", True), ("0", True), ("1", False)])
def test_without_a_browser_its_tests_are_skipped_unless_they_are_required(
    monkeypatch: pytest.MonkeyPatch, required: str, skipped: bool
) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setenv("IMAGETUNE_REQUIRE_BROWSER", required)
    helper = runpy.run_path(browser.__file__)
    assert helper["needs_browser"].mark.args == (skipped,)
    with pytest.raises(AssertionError, match="needs Chromium"):
        helper["_chromium"]()
