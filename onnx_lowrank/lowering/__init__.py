"""Lowering: factors to nodes."""
