import keras
import pytest

from imagetune.model.devices import find_device


@pytest.mark.parametrize(
    ("names", "is_cpu", "name"),
    [(["cpu:0"], True, "cpu:0"), (["gpu:0", "gpu:1"], False, "gpu:0"), ([], True, "cpu")],
)
def test_the_device_is_the_first_and_says_whether_it_shares_the_cores(monkeypatch, names, is_cpu, name):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: names)
    found = find_device()
    assert (found.name, found.is_cpu) == (name, is_cpu)
    assert found.is_tensorflow_cpu == (is_cpu and keras.backend.backend() == "tensorflow")
