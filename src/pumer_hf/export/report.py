"""`ExportReport` holds the results that `pumer-hf export` writes and prints."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..figures import figure
from ..results import Environment, Results, Throughput, text_table

LABELS = {
    "stock": "stock transformers",
    "pytorch_unreduced": "PyTorch, unreduced",
    "pytorch": "PyTorch",
    "onnxruntime_unreduced": "onnxruntime, unreduced",
    "onnxruntime": "onnxruntime",
    "int8": "onnxruntime, int8",
}
"""The names of the models in the table."""


@dataclass(frozen=True)
class ExportedFile:
    """An ONNX file, together with the second file of its weights if they are too large for the first."""

    name: str
    mib: float

    @classmethod
    def of(cls, path: Path) -> "ExportedFile":
        """Return the name and the size of a file."""
        size = sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}.data")) if file.exists())
        return cls(str(path), size / 2**20)


@dataclass(frozen=True)
class Difference:
    """How far the logits of an ONNX file are from PyTorch's on random examples."""

    examples: int
    median: float
    """An example's difference is the largest absolute difference of its logits. This is the median over the examples,
    at the batch size where it is highest."""
    largest: float
    """The largest difference of all examples and batch sizes."""
    spread: float
    """The standard deviation of PyTorch's logits."""
    same_argmax: float | None
    """The part of the examples with the same highest logit; None for a model with one logit."""

    def __str__(self) -> str:
        note = f"logits {self.median:.2g} from PyTorch's (largest {self.largest:.2g}, spread {self.spread:.2g})"
        if self.same_argmax is not None:
            note += f", {100 * self.same_argmax:.0f} % with the same highest"
        return f"{note}, of {self.examples} random examples."


@dataclass(frozen=True)
class ExportReport(Results):
    """An exported model: its files, how exact they are, and how fast they are compared with PyTorch."""

    checkpoint: str
    reduction: dict[str, Any] | list[dict[str, Any]] | None
    pooled_only: bool
    text_length: int
    files: dict[str, ExportedFile]
    difference: dict[str, Difference]
    throughput: Throughput
    """The throughput by name of the model, one of `LABELS`."""
    environment: Environment

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ExportReport":
        return cls(
            checkpoint=values["checkpoint"],
            reduction=values["reduction"],
            pooled_only=values.get("pooled_only", False),  # older files lack it
            text_length=values["text_length"],
            files={name: ExportedFile(**file) for name, file in values["files"].items()},
            difference={name: Difference(**found) for name, found in values["difference"].items()},
            throughput=Throughput.from_dict(values["throughput"]),
            environment=Environment.from_dict(values),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "checkpoint": self.checkpoint,
            "reduction": self.reduction,
            "pooled_only": self.pooled_only,
            "text_length": self.text_length,
            "files": {name: asdict(file) for name, file in self.files.items()},
            "difference": {name: asdict(found) for name, found in self.difference.items()},
            "throughput": self.throughput.to_dict(),
            **self.environment.to_dict(),
        }

    def lines(self) -> list[str]:
        """Return a table of speeds and sizes, and notes about it."""
        speeds = self.throughput.speeds
        rows = [["", "examples/s", "speed", "file"]]
        for name, label in LABELS.items():
            if name in speeds:
                size = f"{self.files[name].mib:.1f} MiB" if name in self.files else ""
                rows.append([label, figure(speeds[name].examples_per_second), f"{speeds[name].ratio:.2f}x", size])
        notes = [f"Speed: {self.throughput.note}."]
        notes += [f"{LABELS[name]}: {found}" for name, found in self.difference.items()]
        if "onnxruntime_unreduced" in speeds:
            gain = speeds["onnxruntime"].ratio / speeds["onnxruntime_unreduced"].ratio
            notes.append(f"In onnxruntime, the reduction makes the model {gain:.2f} times as fast.")
        return [text_table(rows), *notes]
