"""Every fine-tuning strategy against the plain two-stage default, on three small public sets: docs/strategies.md."""
