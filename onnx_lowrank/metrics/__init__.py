"""Metrics: what a fit minimises. Arrays in, numbers and arrays out."""
