"""Predict images as imagetune does, by Pillow and the runtime of the model that lies beside this file."""

import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 100_000_000
# Each header is measured below: Pillow's own limit would warn before it or refuse after it.
Image.MAX_IMAGE_PIXELS = None
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF")


def load_image(file: Any, labels: dict[str, Any]) -> Any:
    """Return (height, width, 3) uint8 RGB: upright, without transparency, and fitted into the model's frame."""
    Image.init()
    if isinstance(file, (str, Path)) and not (Path(file).is_file() and Path(file).stat().st_size <= 5 * MAX_PIXELS):
        raise ValueError(f"no regular file of at most {5 * MAX_PIXELS // 10**6} MB")
    # Nothing else that Pillow knows: some formats start other programs.
    image: Image.Image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
    # From the header, before anything is decoded.
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels, more than the {MAX_PIXELS:,} allowed")
    # Before EXIF is read, which loads the pixels of a PNG and forgets how deep they were.
    if image.mode[0] in "IF" or ";16" in str(getattr(image, "tile", "")):
        raise ValueError(f"{file}: more than 8 bits a pixel; `imagetune predict` reads it")
    (height, width), how = labels["size"], labels["resize"]
    columns, rows = image.size[::-1] if image.getexif().get(0x0112, 1) >= 5 else image.size
    scale = (min if how == "pad" else max)(height / rows, width / columns)
    # A JPEG is decoded at 1/2, 1/4 or 1/8 where that is enough.
    if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
        less = next((factor for factor in (8, 4, 2) if factor * scale <= 1), 1)
        image.draft(None, (image.width // less, image.height // less))
    image = ImageOps.exif_transpose(image).convert("RGBA" if image.has_transparency_data else "RGB")
    pixels, background = np.asarray(image).astype(int), np.array(labels["background"])
    if pixels.shape[2] == 4:
        pixels = (pixels[..., :3] * pixels[..., 3:] + background * (255 - pixels[..., 3:]) + 127) // 255
    rows, columns = pixels.shape[:2]
    if how == "squash":
        return resize(pixels, height, width)
    scale = (min if how == "pad" else max)(height / rows, width / columns)
    if how == "crop":
        high, wide = min(rows, max(1, round(height / scale))), min(columns, max(1, round(width / scale)))
        top, left = (rows - high) // 2, (columns - wide) // 2
        return resize(pixels[top : top + high, left : left + wide], height, width)
    high, wide = min(height, max(1, round(rows * scale))), min(width, max(1, round(columns * scale)))
    top, left = (height - high) // 2, (width - wide) // 2
    framed = np.full((height, width, 3), background, np.uint8)
    framed[top : top + high, left : left + wide] = resize(pixels, high, wide)
    return framed


def resize(pixels: Any, height: int, width: int) -> Any:
    """Return the pixels averaged over areas where they shrink, else interpolated, as OpenCV does within one level."""
    rows, columns = pixels.shape[:2]
    how = "linear" if height * width >= rows * columns else "area" if height <= rows and width <= columns else "mixed"
    down, across = weigh(rows, height, how), weigh(columns, width, how)
    return np.rint(np.einsum("hr,rck,wc->hwk", down, pixels, across, optimize=True)).astype(np.uint8)


def weigh(old: int, new: int, how: str) -> Any:
    """Return (new, old) shares of a line's pixels in each pixel of the line when it is resized."""
    place, ends = np.arange(old), np.arange(new + 1) * old / new
    if how == "area":
        return np.clip(np.minimum(ends[1:, None], place + 1) - np.maximum(ends[:-1, None], place), 0, 1) * new / old
    over = np.arange(1, new + 1) - (np.floor(ends[:-1]) + 1) * new / old
    middle = np.floor(ends[:-1]) + np.maximum(over, 0) % 1 if how == "mixed" else (ends[:-1] + ends[1:] - 1) / 2
    return np.clip(1 - abs(np.clip(middle, 0, old - 1)[:, None] - place), 0, 1)


def name_label(row: Any, labels: dict[str, Any]) -> str:
    """Return the label of one image from the model's outputs."""
    names = labels["class_names"]
    if labels["task"] == "regression":
        return f"{row[0]:.9g}"
    if labels["task"] == "multi_label":
        given = [name for name, share, least in zip(names, row, labels["thresholds"], strict=True) if share >= least]
        return str(labels["separator"].join(sorted(given)))
    # Of ordered classes the median one, which is off by the fewest ranks; of others the most probable one.
    best = np.sum(np.cumsum(row) < 0.5) if labels["task"] == "ordinal" else np.argmax(row)
    return str(names[min(int(best), len(names) - 1)])


def open_runtime(folder: Path, threads: int | None = None) -> Any:
    """Return a function from (n, height, width, 3) uint8 images to outputs by name, (n, ...) each, of a folder's model.

    ``probabilities`` are the model's (n, k) outputs. Exports with an out-of-distribution rule also have ``evidence``.
    LiteRT and ONNX compute with so many threads, by default one a core.
    """
    if (folder / "model.tflite").is_file():
        from ai_edge_litert.interpreter import Interpreter

        predict = Interpreter(
            str(folder / "model.tflite"), num_threads=threads or os.cpu_count()
        ).get_signature_runner()

        def predict_each(images: Any) -> dict[str, Any]:
            rows = [predict(images=image[None]) for image in images]
            return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

        return predict_each
    if (folder / "model.onnx").is_file():
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        (given,), names = session.get_inputs(), [output.name for output in session.get_outputs()]
        run = session.run
        return lambda images: dict(zip(names, run(names, {given.name: images.astype(np.float32)}), strict=True))
    # TensorFlow logs a page while it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    if (folder / "saved_model").is_dir():
        layer = keras.layers.TFSMLayer(str(folder / "saved_model"), call_endpoint="serving_default")
        return lambda images: {name: np.asarray(output) for name, output in layer(images).items()}
    model = keras.models.load_model(folder / "model.keras")
    return lambda images: {"probabilities": model.predict(images, verbose=0)}


def open_model(folder: Path) -> Any:
    """Return a function from (n, height, width, 3) uint8 images to (n, k) outputs of the model in a folder."""
    run = open_runtime(folder)
    return lambda images: run(images)["probabilities"]


def score_images(outputs: dict[str, Any], labels: dict[str, Any], folder: Path) -> Any:
    """Return (n,) out-of-distribution scores, higher for images less like the training ones; None without a rule."""
    rule = labels.get("out_of_distribution")
    if not rule:
        return None
    evidence = outputs["evidence"].astype(float).reshape(len(outputs["evidence"]), -1)
    if rule["score"] == "energy":
        several = labels["task"] == "multi_label"
        return -np.logaddexp(0, evidence).sum(axis=1) if several else -np.logaddexp.reduce(evidence, axis=1)
    statistics = read_statistics(folder / "feature_statistics.npz")
    lengths = np.maximum(np.linalg.norm(evidence, axis=1, keepdims=True), 1e-12)
    return np.array([measure_distance(point, **statistics) for point in evidence / lengths])


@cache
def read_statistics(path: Path) -> dict[str, Any]:
    """Return the arrays of the training images' features: means, directions, variances and rest."""
    with np.load(path) as stored:
        return {name: stored[name].astype(float) for name in stored.files}


def measure_distance(point: Any, means: Any, directions: Any, variances: Any, rest: Any) -> Any:
    """Return the squared Mahalanobis distance of features (d,) of length 1 to the nearest mean."""
    apart = point - means
    along = (apart @ directions.T) ** 2
    beside = np.maximum((apart**2).sum(axis=1) - along.sum(axis=1), 0)
    return ((along / variances).sum(axis=1) + beside / rest).min()


def predict_file(file: Any, labels: dict[str, Any], model: Any, folder: Path) -> tuple[Any, str]:
    """Return the outputs (k,) for an image file, and a line that tells them."""
    outputs = model(load_image(file, labels)[None])
    row, scores = outputs["probabilities"][0].astype(float), score_images(outputs, labels, folder)
    shares = "  ".join(f"{label} {share:.4f}" for label, share in zip(labels["class_names"], row, strict=True))
    odd = scores is not None and scores[0] > labels["out_of_distribution"]["threshold"]
    return row, f"{file}\t{name_label(row, labels)}\t{shares}" + ("\tout-of-distribution" if odd else "")


def repeat_sample(labels: dict[str, Any], model: Any, folder: Path) -> int:
    """Predict the sample image of an export, say whether its outputs are as recorded, and return 0 if they are."""
    sample = labels.get("sample")
    if sample is None:
        print("give the paths of images")
        return 1
    row, line = predict_file(folder / sample["file"], labels, model, folder)
    apart = float(np.abs(row - sample["outputs"]).max())
    same = apart <= sample["tolerance"]
    print(line)
    print(f"{'as' if same else 'NOT as'} recorded in manifest.json: the largest difference is {apart:.2g}")
    return 0 if same else 1


def main(names: Any, folder: Path) -> int:
    """Print a line for each image, or for the sample where none is given, and return how many have failed."""
    about = next(folder / name for name in ("manifest.json", "labels.json") if (folder / name).is_file())
    labels, model, unread = json.loads(about.read_text(encoding="utf-8")), open_runtime(folder), 0
    if not names:
        return repeat_sample(labels, model, folder)
    for name in names:
        try:
            line = predict_file(name, labels, model, folder)[1]
        except Exception as error:  # noqa: BLE001 - Pillow raises whatever it likes for a corrupted file
            unread += 1
            line = f"{name}\terror: {error}"
        print(line)
    return unread


if __name__ == "__main__":
    try:
        code = 1 if main(sys.argv[1:], Path(__file__).parent) else 0
        sys.stdout.flush()
    except BrokenPipeError:
        # A reader such as head has seen enough. Python would write the rest once more, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    if code:
        sys.exit(code)
