"""Measuring speed, FLOPs and the machine; tables of results."""
