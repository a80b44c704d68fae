"""The comparison of an export with its model as one self-contained HTML page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagetune.recipe.sections.data import DataConfig
from imagetune.reports.page import html_environment, write_page
from imagetune.reports.thumbnails import view_thumbnail

THUMBNAIL_PIXELS = 176
MAX_IMAGES = 36


def write_parity_page(document: Mapping[str, Any], path: Path, *, root: Path, config: DataConfig) -> Path:
    """Write how an export's predictions differ from its model's as one HTML page, and return its path.

    Args:
        document: The content of parity.json.
        path: The file; one that is there is replaced.
        root: The folder at which relative paths of images start.
        config: How the images are read.

    Raises:
        ResourceError: It can't be written.
    """
    changed = document["changed"]
    confusions = Counter((one["keras"], one["exported"]) for one in changed)
    images = [
        {**one, **view_thumbnail(one["path"], root=root, config=config, pixels=THUMBNAIL_PIXELS)}
        for one in changed[:MAX_IMAGES]
    ]
    template = html_environment().get_template("parity.html.jinja")
    return write_page(path, template.render(document=document, confusions=confusions.most_common(), images=images))
