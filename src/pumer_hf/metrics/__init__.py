"""The metrics of the tasks, as functions and as `compute_metrics`."""
