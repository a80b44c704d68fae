"""The README.md of an export: how to call it in ten lines, its sample prediction, and what it can't do."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from imagetune.export.formats import Target
from imagetune.model.manifest import Manifest
from imagetune.run_folder.plain_predict import name_label

WIDTH = 118
MAX_SHOWN = 8


def write_readme(
    manifest: Manifest, target: Target, packages: Sequence[str], content: Mapping[str, Any], scores_differ: str
) -> str:
    """Return the README.md of an export.

    Args:
        manifest: That of the model.
        target: The format and number type.
        packages: What ``pip`` has to install.
        content: The export's manifest.json.
        scores_differ: Why its out-of-distribution scores can't be used; empty where they can, or where there are none.
    """
    size = f"{manifest.image.height} x {manifest.image.width}"
    notes = "\n\n".join(textwrap.fill(note, WIDTH) for note in _list_notes(manifest, target, content, scores_differ))
    return f"""\
# {manifest.config.backbone}, {len(manifest.class_names)} outputs, as {target.name}

It takes RGB images of {size} pixels, 0 to 255, and normalises them itself. Without imagetune:

    pip install numpy {" ".join(packages)}
    python example.py IMAGE...

or in Python, in this folder:

    import json
    from pathlib import Path
    import example
    labels = json.loads(Path("manifest.json").read_text())
    predict = example.open_model(Path("."))
    image = example.load_image("image.jpg", labels)
    outputs = predict(image[None])[0]
    print(example.name_label(outputs, labels), outputs.max())

`python example.py` without an image predicts `{content["sample"]["file"]}`, a drawing of no meaning, and says whether
the prediction is the one that this export gave when it was made:

    {_format_sample(content)}

{notes}
"""


def _format_sample(content: Mapping[str, Any]) -> str:
    outputs = content["sample"]["outputs"]
    best = sorted(zip(content["class_names"], outputs, strict=True), key=lambda pair: -pair[1])[:MAX_SHOWN]
    return f"{name_label(outputs, dict(content))}: {'  '.join(f'{name} {value:.4f}' for name, value in best)}"


def _list_notes(manifest: Manifest, target: Target, content: Mapping[str, Any], scores_differ: str) -> Iterator[str]:
    """Yield what else is to be known of an export, a paragraph each."""
    if target.format == "saved_model":
        yield (
            "The signature `serving_default` takes images, and `encoded` takes the bytes of image files, as TensorFlow "
            "Serving gives them. The latter doesn't turn images by their EXIF orientation."
        )
    if manifest.tta:
        yield "The run averages over transformed copies (test-time augmentation); this model alone doesn't."
    if kept := content["float_layers"]:
        yield (
            f"Of its layers {len(kept)} compute with float32, as their int8 cost too much: `manifest.json` names them "
            "(`float_layers`)."
        )
    if rule := content["out_of_distribution"]:
        yield (
            f"`example.py` flags out-of-distribution images: those with a score ({rule['score']}) "
            f"above {rule['threshold']:.6g}, which {rule['share']:.0%} of ordinary images exceed. "
            "`example.score_images` computes it from the second output, `evidence`."
        )
    else:
        why = scores_differ or "the run has no score for it"
        yield f"A flag for out-of-distribution images is not in this export: {why}."
    yield (
        "`manifest.json` has the labels, how images are read, thresholds, the temperature of the calibration and the "
        "hashes. `parity.html` and `parity.json` say how its predictions differ from those of the Keras model on the "
        f"same images. The licence of the weights that training started from: {manifest.weights_license or 'unknown'}."
    )
