"""Carries a search out: fits and times candidates, assembles and measures whole models."""
