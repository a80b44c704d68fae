"""Split names: common words for training, validation and test, as in folder names and table cells."""

from __future__ import annotations

_TRAIN = ("train", "training", "trn", "tr")
_VAL = ("val", "valid", "validate", "validation", "vali", "dev", "development", "eval", "evaluation")
_TEST = ("test", "testing", "tst", "te", "holdout", "heldout")

SPLIT_WORDS = {
    **dict.fromkeys(_TRAIN, "train"),
    **dict.fromkeys(_VAL, "val"),
    **dict.fromkeys(_TEST, "test"),
}

_AROUND = ("set", "data", "dataset", "split", "images", "image", "imgs", "pictures", "photos", "folder")


def parse_split_name(word: str) -> str | None:
    """Return ``train``, ``val`` or ``test`` for ``Training``, ``valid_set``, ``01-TEST``; None for others."""
    letters = "".join(letter for letter in word.casefold() if letter.isalpha())
    if letters in SPLIT_WORDS:
        return SPLIT_WORDS[letters]
    for around in _AROUND:
        inner = letters.removesuffix(around)
        if inner != letters and inner in SPLIT_WORDS:
            return SPLIT_WORDS[inner]
        inner = letters.removeprefix(around)
        if inner != letters and inner in SPLIT_WORDS:
            return SPLIT_WORDS[inner]
    return None
