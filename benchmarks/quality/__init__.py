"""How good the trained models are on image sets of many kinds, against what people use instead: docs/quality.md."""
