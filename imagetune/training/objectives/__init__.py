"""Objectives: losses, class weights, epoch metrics, mixup and CutMix, weight penalties and distillation."""
