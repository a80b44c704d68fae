"""The ``card`` section: what only people know of a model."""

from __future__ import annotations

from imagetune.recipe.base import Section, Sequence


class CardConfig(Section):
    """Sentences for the model card; everything else on it is measured."""

    owners: Sequence[str] = ()
    """Who predictions for the model, and how to reach them."""
    intended_use: str = ""
    """What the model is for, and by whom it is used."""
    out_of_scope: str = ""
    """What it must not be used for."""
    limitations: str = ""
    """What is known to go wrong, and for whom."""
    data_origin: str = ""
    """Where the images come from, who labelled them, and under which licence or consent."""
    license: str = ""
    """Licence of the model."""
