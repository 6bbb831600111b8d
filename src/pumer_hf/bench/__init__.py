"""Benchmarks measure the speed, the memory and the FLOPs of models, and how many tokens each layer leaves."""
