"""Measurements: each takes a network and images and returns a result that can be kept and drawn."""
