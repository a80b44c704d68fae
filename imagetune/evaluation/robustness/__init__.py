"""Robustness: metrics on corrupted images, by the protocol of Hendrycks and Dietterich (ICLR 2019)."""
