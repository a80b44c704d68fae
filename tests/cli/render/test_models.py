from imagetune.cli.render.models import format_layers, format_models
from imagetune.model.describe import LayerRow, ModelRow

BLOCKS = [LayerRow("stem", ("conv",), 1000, (), 0), LayerRow("block1", ("a", "b"), 2000, ("b",), 500)]


def test_backbones_are_a_table():
    rows = [
        ModelRow("vgg16", 14_714_688, 58.9, 71.3, 224, "absent", "CC-BY-4.0"),
        ModelRow("own", 1_000, 0.0, None, 96, "packaged", None),
    ]
    assert format_models(rows) == [
        "backbone  parameters  top-1 %  pixels  weights   licence",
        "vgg16         14.7 M     71.3     224  absent    CC-BY-4.0",
        "own            0.0 M        -      96  packaged  unknown",
    ]


def test_blocks_are_summed():
    assert format_layers(BLOCKS, every_layer=False) == [
        "block   layers  parameters  trainable",
        "stem         1       1,000          0",
        "block1       2       2,000        500",
        "in all       3       3,000        500",
    ]


def test_layers_follow_their_block():
    lines = format_layers(BLOCKS, every_layer=True)
    assert [line.strip() for line in lines if line.startswith("  ")] == ["conv", "a", "b  (trainable)"]
