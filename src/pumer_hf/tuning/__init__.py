"""The search for a schedule that measures a given speed on this machine."""

from .options import TuneOptions
from .report import Row, Tuned
from .tuner import tune

__all__ = ["Row", "TuneOptions", "Tuned", "tune"]
