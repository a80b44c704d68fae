"""Images as arguments of the Python API."""

import numpy as np
import pytest

from imagetune.api.images import as_paths_or_arrays
from imagetune.errors import DataError


@pytest.mark.parametrize(
    ("array", "what", "hint"),
    [
        (
            np.linspace(0, 1, 48, dtype=np.float32).reshape(4, 4, 3),
            "an array of dtype float32 with values 0 to 1 and shape (4, 4, 3)",
            "give uint8 RGB, 0 to 255: (image * 255).round().astype('uint8')",
        ),
        (
            np.full((4, 4, 3), 200.0),
            "an array of dtype float64 with values 200 to 200 and shape (4, 4, 3)",
            "give uint8 RGB, 0 to 255: image.round().astype('uint8')",
        ),
        (
            np.full((4, 4, 3), -1.5),
            "an array of dtype float64 with values -1.5 to -1.5 and shape (4, 4, 3)",
            "give the pixels before they were normalised: uint8 RGB, 0 to 255",
        ),
        (
            np.zeros((4, 4), np.uint8),
            "an array of dtype uint8 with values 0 to 0 and shape (4, 4)",
            "give paths, or uint8 RGB arrays of shape (height, width, 3) or (n, height, width, 3)",
        ),
    ],
)
def test_an_array_of_other_numbers_is_refused_with_its_type_its_range_and_what_to_do(array, what, hint):
    with pytest.raises(DataError) as caught:
        as_paths_or_arrays(array)
    assert (caught.value.what, caught.value.hint) == (what, hint)
