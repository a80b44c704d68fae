"""Predict images as imagetune does, by Pillow and the runtime of the model that lies beside this file."""

import json
import os
import sys
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


def open_model(folder: Path) -> Any:
    """Return a function from (n, height, width, 3) uint8 images to (n, k) outputs of the model in a folder."""
    if (folder / "model.tflite").is_file():
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(folder / "model.tflite"), num_threads=os.cpu_count())
        interpreter.allocate_tensors()
        (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

        def predict(image: Any) -> Any:
            interpreter.set_tensor(given["index"], image[None].astype(given["dtype"]))
            interpreter.invoke()
            return interpreter.get_tensor(result["index"])[0].copy()

        return lambda images: np.stack([predict(image) for image in images])
    if (folder / "model.onnx").is_file():
        import onnxruntime

        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        return lambda images: session.run(None, {session.get_inputs()[0].name: images.astype(np.float32)})[0]
    # TensorFlow logs a page while it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    if (folder / "saved_model").is_dir():
        layer = keras.layers.TFSMLayer(str(folder / "saved_model"), call_endpoint="serving_default")
        return lambda images: np.asarray(layer(images)["probabilities"])
    model = keras.models.load_model(folder / "model.keras")
    return lambda images: model.predict(images, verbose=0)


def main(names: Any, folder: Path) -> int:
    """Print a line for each image and return how many of them can't be read."""
    about = next(folder / name for name in ("manifest.json", "labels.json") if (folder / name).is_file())
    labels, model, unread = json.loads(about.read_text(encoding="utf-8")), open_model(folder), 0
    for name in names:
        try:
            image = load_image(name, labels)
        except Exception as error:  # noqa: BLE001 - Pillow raises whatever it likes for a corrupted file
            unread += 1
            print(f"{name}\terror: {error}")
            continue
        row = model(image[None])[0].astype(float)
        shares = "  ".join(f"{label} {share:.4f}" for label, share in zip(labels["class_names"], row, strict=True))
        print(f"{name}\t{name_label(row, labels)}\t{shares}")
    return unread


if __name__ == "__main__":
    if main(sys.argv[1:], Path(__file__).parent):
        sys.exit(1)
