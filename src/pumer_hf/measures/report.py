"""`Explanations` says how well a reduction explains answers; `ExplanationReport` is what `pumer-hf measure` writes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..results import PERCENT, Environment, Metric, MetricType, Results, text_table
from ..tokens import place_in_words

FAITHFULNESS = {
    "sufficiency": MetricType("points", higher_is_better=False),
    "random_sufficiency": MetricType("points", higher_is_better=False),
    "comprehensiveness": MetricType("points"),
    "random_comprehensiveness": MetricType("points"),
}
"""The measures of faithfulness. Each is an accuracy that is lost."""
MEANINGS = {"sufficiency": "with what is kept alone", "comprehensiveness": "with what is pruned alone"}


@dataclass(frozen=True)
class LayerAlignment:
    """How well the patches that a layer holds match the regions, in percent: means over examples and annotators."""

    layer: int
    precision: float
    recall: float
    random_precision: float
    random_recall: float
    examples: int
    """How many examples have a region."""
    site: str = "layers"
    """Where the layer is, one of [`reducers.base.SITES`]."""


@dataclass(frozen=True)
class Explanations:
    """How well the reduction of a model explains its answers (TiP, Section 5.2)."""

    layers: tuple[LayerAlignment, ...]
    """One for each layer that reduces."""
    examples: int
    without_region: int
    """How many examples have no region. `layers` leave them out."""
    annotators: int
    seed: int = 0
    """The seed of the random baselines."""
    accuracy: dict[str, Metric] = field(default_factory=dict)
    """The accuracy by name of the reducer. It is empty without labels."""
    faithfulness: dict[str, Metric] = field(default_factory=dict)
    """The measures of `FAITHFULNESS`. It is empty without labels."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Explanations":
        """Read the explanations from the values of a file."""
        return cls(
            layers=tuple(LayerAlignment(**layer) for layer in values["layers"]),
            accuracy={name: PERCENT.of(value) for name, value in values.get("accuracy", {}).items()},
            faithfulness={name: kind.of(values[name]) for name, kind in FAITHFULNESS.items() if name in values},
            **{name: values[name] for name in ("examples", "without_region", "annotators", "seed")},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what a file holds, as plain JSON types."""
        accuracy = {name: metric.value for name, metric in self.accuracy.items()}
        return {
            "layers": [asdict(layer) for layer in self.layers],
            "examples": self.examples,
            "without_region": self.without_region,
            "annotators": self.annotators,
            "seed": self.seed,
            **({"accuracy": accuracy} if accuracy else {}),
            **{name: metric.value for name, metric in self.faithfulness.items()},
        }

    def __str__(self) -> str:
        """Return a table with a row per layer, then one of faithfulness, each with a note about its figures."""
        rows = [["patches held, of those asked about", "precision", "(random)", "recall", "(random)"]]
        for one in self.layers:
            values = (one.precision, one.random_precision, one.recall, one.random_recall)
            place = place_in_words(one.site, one.layer)
            rows.append([place if one.site == "inputs" else f"after {place}", *(f"{value:.1f} %" for value in values)])
        lines = [text_table(rows), self.regions_note]
        if self.faithfulness:
            rows = [["accuracy lost", "points", "(random)"]]
            for name, meaning in MEANINGS.items():
                lost, drawn = self.faithfulness[name], self.faithfulness[f"random_{name}"]
                good = "high" if lost.higher_is_better else "low"
                rows.append([f"{name}: {meaning}; {good} is good", lost.number, drawn.number])
            note = f"Accuracy: {self.accuracy['unreduced']} unreduced, {self.accuracy['reduced']} reduced."
            lines += [text_table(rows), note]
        return "\n".join(lines)

    @property
    def regions_note(self) -> str:
        """What the alignment was measured on."""
        asking = self.examples - self.without_region
        by = f", mean of {self.annotators} annotators" if self.annotators > 1 else ""
        return f"Measured on {asking} examples with a region{by}; {self.without_region} without one are left out."


@dataclass(frozen=True)
class ExplanationReport(Results):
    """The explanations of a checkpoint, and what they were measured on."""

    checkpoint: str
    reduction: dict[str, Any] | list[dict[str, Any]] | None
    data: str
    """The name of the data set."""
    explanations: Explanations
    environment: Environment

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ExplanationReport":
        facts = (values["checkpoint"], values["reduction"], values["data"])
        return cls(*facts, Explanations.from_dict(values), Environment.from_dict(values))

    def to_dict(self) -> dict[str, Any]:
        facts = {"checkpoint": self.checkpoint, "reduction": self.reduction, "data": self.data}
        return {**facts, **self.explanations.to_dict(), **self.environment.to_dict()}
