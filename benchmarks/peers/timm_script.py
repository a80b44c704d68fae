"""timm and PyTorch on the same images: images a second with timm's own loader, or of the step alone.

    python benchmarks/peers/timm_script.py FOLDER --backbone resnet50 --batch 256 --epochs 4

FOLDER holds a folder a class. For the Python that has torch and timm; nothing of imagetune is needed. The model is
trained whole from random weights, in bfloat16 where there is a GPU, channels last, with AdamW. The last line printed is
JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import timm  # type: ignore[import-not-found]
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="resnet50", help="timm's name, such as convnext_tiny")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=4, help="the first doesn't count")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that load")
    parser.add_argument("--one-batch", action="store_true", help="the same batch, on the device, again and again")
    arguments = parser.parse_args()
    loader, count = make_loader(arguments)
    classes = len(loader.dataset.reader.class_to_idx)
    model = timm.create_model(arguments.backbone, pretrained=False, num_classes=classes)
    model = model.to(DEVICE, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    steps = max(1, count // arguments.batch)
    first = next(iter(loader)) if arguments.one_batch else None
    seconds = [
        epoch_seconds(model, optimizer, loader if first is None else again(first, steps))
        for _ in range(arguments.epochs)
    ]
    result = {
        "images_per_second": steps * arguments.batch / statistics.median(seconds[1:]),
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu",
        "versions": f"timm {timm.__version__}, torch {torch.__version__}",
    }
    print(json.dumps(result))


def make_loader(arguments: argparse.Namespace) -> tuple[Any, int]:
    """Return timm's training loader, with its usual crops and flips, and the number of images."""
    dataset = timm.data.create_dataset("", root=str(arguments.folder), is_training=True)
    loader = timm.data.create_loader(
        dataset,
        input_size=(3, arguments.size, arguments.size),
        batch_size=arguments.batch,
        is_training=True,
        hflip=0.5,
        color_jitter=0.0,
        num_workers=arguments.workers,
        persistent_workers=arguments.workers > 0,
        use_prefetcher=DEVICE == "cuda",
        device=torch.device(DEVICE),
    )
    return loader, len(dataset)


def again(batch: Any, times: int) -> Iterator[Any]:
    """Yield the same batch, which is on the device already."""
    images, labels = batch[0].to(DEVICE), batch[1].to(DEVICE)
    for _ in range(times):
        yield images, labels


def epoch_seconds(model: Any, optimizer: Any, batches: Iterable[Any]) -> float:
    """Train on the batches once; return the seconds until the device is done."""
    started = time.perf_counter()
    for images, labels in batches:
        pixels = images.to(DEVICE, memory_format=torch.channels_last, non_blocking=True)
        with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=DEVICE == "cuda"):
            loss = torch.nn.functional.cross_entropy(model(pixels), labels.to(DEVICE, non_blocking=True))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    float(loss.detach())
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
