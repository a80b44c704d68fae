"""What an exported model gives: its predictions, and what tells images that are unlike the training images."""

from __future__ import annotations

import keras

from imagetune.model.loaded import LoadedModel

PROBABILITIES = "probabilities"
"""The output (n, k) of every export: probabilities, or numbers for regression."""
EVIDENCE = "evidence"
"""The output (n, d) that the out-of-distribution score is made of: logits for energy, features for mahalanobis."""


def build_export_model(loaded: LoadedModel) -> keras.Model:
    """Return the model whose outputs are named `PROBABILITIES` and, where its run has an OOD rule, `EVIDENCE`.

    The second output is there in the model already, so that it costs nothing but its copy. A score computed inside the
    graph would be quantised with it, and a distance of thousands is nothing that 256 steps can tell.

    Args:
        loaded: The model of a finished run; its layers are shared.
    """
    model, outputs = loaded.model, {PROBABILITIES: loaded.model.output}
    if loaded.evidence_layer is not None:
        outputs[EVIDENCE] = keras.ops.cast(model.get_layer(loaded.evidence_layer).output, "float32")
    return keras.Model(model.input, outputs, name=model.name)
