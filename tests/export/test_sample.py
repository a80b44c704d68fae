"""The image that travels with an export, predicted by its runtime alone."""

import json
import shutil
import subprocess
import sys

import pytest

# As on a machine that has the runtime and nothing of ours.
ALONE = """
import runpy, sys
sys.modules |= dict.fromkeys(("imagetune", "keras", "tensorflow"))
sys.path.insert(0, sys.argv[1])
sys.argv = ["example.py", *sys.argv[2:]]
runpy.run_path(sys.path[0] + "/example.py", run_name="__main__")
"""


def call_alone(folder, *images):
    command = [sys.executable, "-IB", "-c", ALONE, folder, *images]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def test_without_an_image_the_recorded_prediction_is_repeated(litert):
    told = call_alone(litert)
    assert told.returncode == 0, told.stderr
    first, second = told.stdout.splitlines()
    sample = json.loads((litert / "manifest.json").read_text())["sample"]
    label = first.split("\t")[1]
    assert first.startswith(f"{litert / sample['file']}\t")
    assert second.startswith("as recorded in manifest.json: the largest difference is")
    assert sum(sample["outputs"]) == pytest.approx(1, abs=1e-3)
    assert f"    {label}: {label} {max(sample['outputs']):.4f}" in (litert / "README.md").read_text()


def test_another_prediction_than_the_recorded_one_is_an_error(litert, tmp_path):
    other = shutil.copytree(litert, tmp_path / "export")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["sample"]["outputs"].reverse()
    (other / "manifest.json").write_text(json.dumps(manifest))
    told = call_alone(other)
    assert told.returncode == 1
    assert told.stdout.splitlines()[1].startswith("NOT as recorded in manifest.json")


def test_out_of_distribution_images_are_flagged(litert, wide_run):
    """The sample, a drawing, is none of the striped images that were trained on."""
    one = next((wide_run.parent / "images/red").iterdir())
    drawing, striped = call_alone(litert, litert / "sample.png", one).stdout.splitlines()
    assert drawing.endswith("\tout-of-distribution")
    assert not striped.endswith("out-of-distribution")
