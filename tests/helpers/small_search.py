"""Recipe of a small search, whose trials take a second or two, and a search space of two values."""

RECIPE = """\
name: colours
seed: 3
data: {{source: {source}, image_size: 32, workers: 0, augmentation: none}}
model: {{backbone: mobilenet_v3_small, weights: random}}
train:
  batch_size: 16
  stages: [{{name: head, unfreeze: none, epochs: 2, learning_rate: 1e-2}}]
evaluate: {{bootstrap_samples: 100, explain: 0, label_errors: false}}
tracking: {{enabled: {tracked}}}
"""
RATES = "train.stages.0.learning_rate={search: choice, values: [1e-5, 1e-2], default: 1e-2}"
