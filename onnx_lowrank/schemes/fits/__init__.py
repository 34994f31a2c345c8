"""Algorithms that fit factors to a weight."""
