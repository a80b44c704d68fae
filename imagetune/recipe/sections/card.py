"""The ``card`` section: statements for the model card that only people can make."""

from __future__ import annotations

from imagetune.recipe.sections.base import Section, Sequence


class CardConfig(Section):
    """Statements for the model card (Mitchell et al. 2019); everything else on the card is measured."""

    owners: Sequence[str] = ()
    """People or teams that answer for the model, and how to reach them."""
    intended_use: str = ""
    """What the model is for, and who uses it."""
    out_of_scope: str = ""
    """What the model must not be used for."""
    limitations: str = ""
    """Known failures of the model, and whom they affect."""
    data_origin: str = ""
    """Where the images come from, who labelled them, and the licence or consent under which they are used."""
    license: str = ""
    """Licence under which the model may be used."""
