"""The recipe of a fit of a moment, on the coloured images that tests share."""

RECIPE = """\
name: colours
seed: 3
data:
  source: {source}
  image_size: 32
  workers: 0
model: {{backbone: tiny, weights: random}}
train:
  batch_size: 16
  stages:
    - {{name: head, unfreeze: none, epochs: 1, learning_rate: 1e-2}}
    - {{name: top, unfreeze: last 1 blocks, epochs: 1, learning_rate: 1e-3}}
evaluate: {{bootstrap_samples: 100}}
"""
