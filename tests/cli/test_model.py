import json

from imagetune.model.backbones.table import list_backbones


def test_list_has_every_backbone(imagetune):
    rows = json.loads(imagetune("model", "list", "--json").out)
    assert {row["name"] for row in rows} == {backbone.name for backbone in list_backbones()}
    lite = next(row for row in rows if row["name"] == "efficientnet_lite0")
    assert (lite["weights"], lite["license"]) == ("packaged", "Apache-2.0")


def test_list_shows_the_licence_of_the_weights(imagetune):
    lines = {line.split()[0]: line for line in imagetune("model", "list").out.splitlines()}
    assert lines["backbone"].endswith("licence")
    assert lines["vgg16"].endswith("CC-BY-4.0")
    assert lines["efficientnet_lite2"].endswith("packaged  Apache-2.0")


def test_layers_shows_what_would_train(imagetune):
    outcome = imagetune("model", "layers", "vgg16", "--unfreeze", "last 1 blocks", "--all")
    assert outcome.code == 0
    assert "block5_conv3  (trainable)" in outcome.out
    assert "block4_conv3\n" in outcome.out


def test_layers_of_an_unknown_backbone_gets_a_guess(imagetune):
    outcome = imagetune("model", "layers", "VGG_16")
    assert outcome.code == 2
    assert "vgg16" in outcome.err


def test_weights_check_finds_the_packaged_ones_whole(imagetune, workplace, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(workplace))
    outcome = imagetune("weights", "check", "efficientnet_lite0")
    assert outcome.code == 0
    assert "packaged" in outcome.out
    outcome = imagetune("weights", "check", "resnet50")
    assert outcome.code == 5
    assert "absent" in outcome.out
