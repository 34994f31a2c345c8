"""Passes: rewritings of a model, one per file."""
