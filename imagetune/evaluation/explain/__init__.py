"""Saliency maps: Grad-CAM and occlusion, and the explanations of the worst mistakes."""
