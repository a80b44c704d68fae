"""Solving a linear head on frozen features: convex losses, L-BFGS, and a penalty chosen by cross-validation."""
