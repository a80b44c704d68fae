"""Saliency: Grad-CAM and occlusion."""
