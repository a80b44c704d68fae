"""The page at / in headless Chromium, on a real server that wants a token."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import needs_browser, window
from devtools import Window
from PIL import Image
from served import Served, make_untrained_run, serving

from imagetune.core.files import write_json
from imagetune.evaluation.predictions import Predictions, write_predictions
from imagetune.run_folder.folder import RunFolder
from imagetune.run_folder.reader import read_evaluation
from imagetune.serving.page import build_policy, read_page

TOKEN = "a-token-nobody-could-guess"
# Class names come from folders, and may be anything.
CLASSES = ("<b>blue</b>", "green", "<img src=x onerror=alert(1)>", "red", "white", "a long name that has to be broken")
RULES = {
    "conformal": {"method": "least_ambiguous", "coverage": 0.9, "threshold": 0.05},
    # Every image is flagged.
    "out_of_distribution": {"score": "energy", "threshold": -100.0, "share": 0.05},
}
SURFACES = {"--ink": ("--page", "--card", "--warn-band", "--bad-band"), "--muted": ("--page", "--card")}
SURFACES |= {"--warn": ("--warn-band",), "--bad": ("--bad-band",), "--good": ("--card",), "--on-accent": ("--accent",)}
# What must be told apart from its surroundings but isn't text: edges of controls and drop zone, bars, focus.
SHAPES = {"--edge": ("--page", "--card"), "--accent": ("--page", "--card", "--band")}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("page")
    run = RunFolder(make_untrained_run(folder / "run", class_names=CLASSES, **RULES))
    labels = np.arange(60) % len(CLASSES)
    predictions = Predictions(tuple(map(str, labels)), labels, np.eye(len(CLASSES))[labels], CLASSES)
    run.predictions("val").parent.mkdir()
    write_predictions(predictions, run.predictions("val"))
    scores = {"edges": [-200.0, -150.0, -100.0], "counts": {"val": [30, 30]}}
    flags = {"threshold": -100.0, "share": 0.05, "chosen_on": {"splits": ["val"], "images": 60}, "histogram": scores}
    write_json(run.evaluation, {**read_evaluation(run.evaluation), "out_of_distribution": flags})
    (folder / "token").write_text(TOKEN)
    with serving(run.path, folder, "--token-file", str(folder / "token")) as server:
        yield server


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in ("one.png", "two.png"):
        Image.fromarray(random.integers(0, 256, (40, 60, 3), np.uint8)).save(folder / name)
    (folder / "text.png").write_text("This is no image.")
    return {path.name: path for path in folder.iterdir()}


def enter(opened: Window, token: str = TOKEN) -> None:
    opened.await_true('!document.querySelector("#token").hidden')
    opened.ask(f'document.querySelector("#token-text").value = "{token}"')
    opened.press("Enter")


def open_page(opened: Window, served: Served, *, width: int = 1280) -> None:
    opened.open(served.address + "/", width=width, height=900)
    enter(opened)
    opened.await_true('document.querySelector("#about").textContent')


def await_results(opened: Window, count: int) -> None:
    opened.await_true(f'document.querySelectorAll("#results article").length == {count}')


def words(opened: Window, selector: str) -> list[str]:
    found: list[str] = opened.ask(f'[...document.querySelectorAll("{selector}")].map((one) => one.textContent)')
    return found


def troubles(opened: Window) -> list[str]:
    """Return what the console says, but for requests that the server refused as it should, and advice."""
    return [text for text in opened.console if "responded with a status" not in text and "recommendation" not in text]


@needs_browser
def test_an_image_is_predicted_and_explained_and_names_stay_text(served: Served, images: dict[str, Path]) -> None:
    with window("about:blank") as opened:
        open_page(opened, served)
        opened.choose_files("#files", [images["one.png"]])
        await_results(opened, 1)
        (title,) = words(opened, "#results h3")
        assert any(title.startswith(f"{name}, ") and title.endswith("%") for name in CLASSES)
        assert len(words(opened, "#results .bars:first-of-type li")) >= 5
        assert set(words(opened, "#results .bars .name")) == set(CLASSES)
        assert words(opened, "#results .set")[0].startswith("For 90 of 100 images the true label is in a set")
        assert "The model has seen nothing like this image" in words(opened, "#results .notice")[0]
        assert opened.ask('document.querySelectorAll("#results .bars b, #results .bars img").length') == 0
        opened.ask('document.querySelector(".explanation button").click()')
        opened.await_true('document.querySelector(".shown img")?.naturalWidth == 320')
        assert "speak" in words(opened, ".shown figcaption")[0]
        assert not troubles(opened)


@needs_browser
def test_what_is_pasted_dropped_and_photographed_is_sent(served: Served, images: dict[str, Path]) -> None:
    transfer = """
        const pixels = document.createElement("canvas").toDataURL().split(",")[1];
        const bytes = Uint8Array.from(atob(pixels), (one) => one.charCodeAt(0)), given = new DataTransfer();
        given.items.add(new File([bytes], "given.png", {type: "image/png"}));
    """
    with window("about:blank") as opened:
        open_page(opened, served)
        opened.ask(f'{{{transfer} dispatchEvent(new ClipboardEvent("paste", {{clipboardData: given}}))}}')
        await_results(opened, 1)
        opened.ask(f'{{{transfer} dispatchEvent(new DragEvent("drop", {{dataTransfer: given, cancelable: true}}))}}')
        await_results(opened, 2)
        opened.choose_files("#camera", [images["two.png"]])
        await_results(opened, 3)
        assert opened.ask('document.querySelector("#camera").getAttribute("capture")') == "environment"
        assert words(opened, "#results figure figcaption") == ["two.png", "given.png", "given.png"]
        assert not troubles(opened)


@needs_browser
def test_an_image_that_cannot_be_read_says_why_and_stops_no_other(served: Served, images: dict[str, Path]) -> None:
    with window("about:blank") as opened:
        open_page(opened, served)
        opened.choose_files("#files", [images["text.png"], images["one.png"]])
        await_results(opened, 2)
        (problem,) = words(opened, "#results .notice.bad")
        assert problem.startswith("text.png: ")
        assert "/" not in problem
        assert words(opened, "#results h3")[1] == "No prediction"
        opened.await_true('document.querySelector("#status").textContent.startsWith("Done: ")')


@needs_browser
def test_without_the_right_token_the_page_asks_for_it(served: Served) -> None:
    with window("about:blank") as opened:
        opened.open(served.address + "/", width=1280, height=900)
        enter(opened, "not the right one")
        opened.await_true('document.querySelector("#token-problem").textContent.includes("not the one")')
        assert opened.ask('document.querySelector("#drop").hidden')
        assert words(opened, "#title") == ["imagetune"]
        enter(opened)
        opened.await_true('document.querySelector("#title").textContent == "run"')
        assert "accuracy is 0.500 (95% interval 0.400 to 0.600)" in words(opened, "#about")[0]
        assert not opened.ask('document.querySelector("#drop").hidden')


@needs_browser
def test_the_keyboard_reaches_everything_and_shows_where_it_is(served: Served, images: dict[str, Path]) -> None:
    with window("about:blank") as opened:
        open_page(opened, served)
        opened.choose_files("#files", [images["one.png"]])
        await_results(opened, 1)
        reached = [opened.ask("document.activeElement.textContent")]
        for _ in range(3):
            opened.press("Tab")
            focus = 'document.activeElement.matches(":focus-visible")'
            assert opened.ask(f"{focus} && getComputedStyle(document.activeElement).outlineWidth") == "3px"
            reached.append(opened.ask("document.activeElement.textContent"))
            if reached[-1] == "Show what it looks at":
                opened.press("Enter")
                opened.await_true('document.querySelector(".shown img")')
        assert reached == ["Choose images", "The other 1", "Show what it looks at", "Shares that are watched"]


@needs_browser
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_nothing_is_wider_than_the_window(served: Served, images: dict[str, Path], width: int) -> None:
    with window("about:blank") as opened:
        open_page(opened, served, width=width)
        opened.choose_files("#files", [images["one.png"], images["text.png"]])
        await_results(opened, 2)
        opened.ask('for (const folded of document.querySelectorAll("details")) folded.open = true')
        assert opened.ask("document.documentElement.scrollWidth") == width


@needs_browser
def test_drift_is_told_in_a_sentence(served: Served, images: dict[str, Path]) -> None:
    for _ in range(30):
        assert served.send("/v1/predict", images["one.png"].read_bytes(), "image/png", Authorization=f"Bearer {TOKEN}")
    with window("about:blank") as opened:
        open_page(opened, served)
        assert words(opened, "#drift-text")[0].startswith("No: something has changed in the ")
        assert any("were flagged as unlike the training images" in text for text in words(opened, "#drift-alarms p"))
        assert words(opened, "#drift-shares tr th")[0] == "flagged as out-of-distribution"
    metrics = served.send("/metrics", Authorization=f"Bearer {TOKEN}").body.decode()
    assert 'imagetune_drift_alarm{kind="flagged",share="flagged as out-of-distribution"} 1.0' in metrics


@needs_browser
def test_a_server_that_has_gone_is_told(served: Served, images: dict[str, Path], tmp_path: Path) -> None:
    with window("about:blank") as opened:
        open_page(opened, served)
        assert served.stop() == 0
        opened.choose_files("#files", [images["one.png"]])
        await_results(opened, 1)
        assert "The server can't be reached." in words(opened, "#results .notice")[0]


def test_the_policy_lets_nothing_in_but_what_the_page_itself_holds() -> None:
    page = read_page()
    policy = build_policy(page)
    assert "unsafe" not in policy
    assert re.search(r"script-src 'sha256-[^' ]+';", policy)
    assert "default-src 'none'" in policy
    assert not re.findall(r'(?:src|href)="(?!data:,)[^"]*"', page)
    assert not re.findall(r"https?://", page)
    # Handlers and styles in attributes would be refused.
    assert not re.findall(r'\s(?:on\w+|style)="', page)
    assert "innerHTML" not in page


@pytest.mark.parametrize("dark", [False, True])
def test_colours_have_the_contrast_of_wcag_aa(dark: bool) -> None:
    colours = palette(dark=dark)
    for kind, least in ((SURFACES, 4.5), (SHAPES, 3.0)):
        for front, backs in kind.items():
            for back in backs:
                assert contrast(colours[front], colours[back]) >= least, (front, back)


def palette(*, dark: bool) -> dict[str, str]:
    blocks = re.findall(r":root \{(.*?)\}", read_page(), re.DOTALL)
    return dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", blocks[int(dark)]))


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, as WCAG 2.2 defines it."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    values = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
