"""Fits: statistics of calibration data, one layer's fit, and those of all layers."""
