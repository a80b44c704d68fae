"""Write the fixture of the current version of imagetune's file formats, which later versions have to read.

    python -m tests.helpers.format_fixtures

It makes tests/fixtures/formats/vN, where N is the formats' number: images and a recipe, a run that is finished, one
that was stopped within an epoch, an export, a search, and a file of predictions that is half written. A folder that
exists is never written again: what a version has written is what later ones are tested with, in
tests/cli/test_format_versions.py.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
from pathlib import Path

from imagetune.core.documents import CURRENT
from imagetune.core.quiet import quiet_start

PROJECT = Path(__file__).resolve().parents[2]
FORMATS = PROJECT / "tests/fixtures/formats"
RECIPE = """\
name: kept
seed: 3
data: {source: images, image_size: 32, workers: 0, augmentation: none}
model: {backbone: tiny, weights: random}
train:
  batch_size: 4
  average: ema
  commit_minutes: 1e-9
  stages:
    - {name: head, unfreeze: none, epochs: 1, learning_rate: 1e-2, solve: false}
    - {name: top, unfreeze: last 1 blocks, epochs: 2, learning_rate: 1e-3}
evaluate: {bootstrap_samples: 100, explain: 0, baselines: false, label_errors: false, slices: false}
tracking: {enabled: false}
"""
# They are made anew from the rest, and are no format of ours.
LEFT_OUT = (
    "report.html",
    "model_card.md",
    "plots",
    "model.keras",
    "predict.py",
    "system.jsonl",
    "debug.log",
    "exports",
)
LEFT_OUT_OF_EXPORT = ("parity.html", "example.py", "README.md")


def main() -> None:
    """Write the fixture, or say that it is there."""
    place = FORMATS / f"v{CURRENT}"
    if place.exists():
        raise SystemExit(f"{place} exists: what a version wrote is kept as it is")
    sys.path[:0] = [str(PROJECT), str(PROJECT / "tests/helpers")]
    with quiet_start():
        from searches import write_search
        from tiny_backbones import tiny_backbones

        from tests.conftest import draw_images
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    # Nothing in it tells of who made it: run folders know where their images are, and on what machine they were made.
    platform.platform = lambda *_, **__: "Linux"
    made = Path("/tmp/kept")
    made.mkdir()
    draw_images(made / "images", count=6)
    (made / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    with contextlib.chdir(made):
        write_search(Path("search"), trials=3, finalists=0)
        write_kept_rows(Path("rows.csv"))
        with tiny_backbones():
            write_runs()
    shutil.move(made, place)


def write_kept_rows(path: Path) -> None:
    """Write two rows of a file that is stopped before its end."""
    from imagetune.core.growing_file import grow_file

    with contextlib.suppress(KeyboardInterrupt), grow_file(path, {"model": "kept"}, resume=False) as file:
        file.add(b"path,predicted\n", 0)
        file.add(b"a.png,red\nb.png,blue\n", 2)
        raise KeyboardInterrupt


def write_runs() -> None:
    """Write a finished run, a stopped one and an export into the working folder."""
    from imagetune.commands.export import export
    from imagetune.commands.fit import fit
    from imagetune.errors import StoppedError
    from imagetune.training.setup.events import SilentListener, StepDone
    from imagetune.training.setup.stopping import StopWhen

    class InLastStage(SilentListener):
        """Listener that counts the steps of the last stage."""

        steps = 0

        def step_done(self, event: StepDone) -> None:
            """Count a step."""
            self.steps += event.stage == "top"

    fit(Path("recipe.yaml"), run_dir=Path("run"))
    listener = InLastStage()
    with contextlib.suppress(StoppedError):
        fit(Path("recipe.yaml"), run_dir=Path("stopped"), listener=listener, stop=StopWhen(lambda: listener.steps >= 2))
    export("run", format="litert", out=Path("export"))
    shutil.rmtree("run/checkpoints", ignore_errors=True)
    for folder, names in (("run", LEFT_OUT), ("stopped", LEFT_OUT), ("export", LEFT_OUT_OF_EXPORT)):
        for name in names:
            path = Path(folder) / name
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
