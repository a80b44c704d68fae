import keras
import numpy as np

from imagetune.training.loop.batch_norm import reestimate_statistics


def test_statistics_become_those_of_the_images_and_nothing_else_changes():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Dropout(0.5)(inputs)
    x = keras.layers.BatchNormalization(name="norm", momentum=0.9)(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="dense")(x))
    norm = model.get_layer("norm")
    norm.trainable = False
    dense = [weight.copy() for weight in model.get_layer("dense").get_weights()]
    batches = [np.random.default_rng(seed).normal(seed, 1 + seed, (8, 4, 4, 3)).astype("float32") for seed in range(3)]
    assert reestimate_statistics(model, batches) == 1
    _, _, mean, variance = norm.get_weights()
    np.testing.assert_allclose(mean, np.mean([batch.mean(axis=(0, 1, 2)) for batch in batches], axis=0), rtol=1e-4)
    np.testing.assert_allclose(variance, np.mean([batch.var(axis=(0, 1, 2)) for batch in batches], axis=0), rtol=1e-4)
    for before, after in zip(dense, model.get_layer("dense").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert (norm.momentum, norm.trainable) == (0.9, False)
    assert model.layers[1].rate == 0.5
