"""Accuracy, as functions and as compute_metrics."""
