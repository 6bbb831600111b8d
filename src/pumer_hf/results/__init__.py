"""Results of measurements: typed, written to JSON files and read again, and shown as tables.

`Metric` and `Evaluation` say how good a model is, `Cost` says what it costs, and `Environment` says where that was
measured. `Report` holds all three. A command that measures something else has its own subclass of `Results`.
"""

from .cost import REGIMES, Cost, Latencies, Latency, Memory, Speed, Throughput, TokenCounts
from .elastic import Elastic, SpeedPoint
from .environment import Command, Environment, Machine
from .metrics import IMAGE_TOKENS, PERCENT, Evaluation, Metric, MetricType, best_of, with_range
from .report import ROLES, Report, Results, SeedRun, check_results_file
from .scorer import BudgetRow, ScorerReport, layer_table
from .tables import markdown_table, text_table

__all__ = [
    "IMAGE_TOKENS",
    "PERCENT",
    "REGIMES",
    "ROLES",
    "BudgetRow",
    "Command",
    "Cost",
    "Elastic",
    "Environment",
    "Evaluation",
    "Latencies",
    "Latency",
    "Machine",
    "Memory",
    "Metric",
    "MetricType",
    "Report",
    "Results",
    "ScorerReport",
    "SeedRun",
    "Speed",
    "SpeedPoint",
    "Throughput",
    "TokenCounts",
    "best_of",
    "check_results_file",
    "layer_table",
    "markdown_table",
    "text_table",
    "with_range",
]
