"""Rewriting of graphs: passes, forms of layers, and the one place that puts them together."""
