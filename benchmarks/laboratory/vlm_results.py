"""The results of pretrained decoder models on public sets: a file for each cell."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pumer_hf.results import Environment, Results
from pumer_hf.results.environment import ENVIRONMENT_FIELDS

from .lookahead_results import Accuracy
from .store import DONE
from .vlm_rows import Budget


@dataclass(frozen=True)
class VlmSettings:
    """How the cells of a folder are measured. They are the same in all of them."""

    questions: int | None
    """The most questions of a set; None: all."""
    seed: int
    """Of the order of the questions."""
    batch_size: int
    """Questions per call of `generate`, and prompts of a prefill."""
    dtype: str
    """The precision of the model."""
    max_new_tokens: int | None
    """The longest answer; None: that of the set."""
    draws: int
    """How often the row `random` is measured, each time with another seed."""


@dataclass(frozen=True)
class Prefill:
    """How fast the prefill of a batch is: the image tower, and the decoder up to the first new token."""

    ratio: float
    """How many times as fast as the unreduced model: the median of the ratios of all rounds, which take turns."""
    seconds: float
    unreduced_seconds: float
    prompts: int
    """Prompts in the batch."""


@dataclass(frozen=True)
class VlmScore:
    """What a row was measured to answer, and at which cost."""

    accuracy: Accuracy
    """The mean score in percent. With several draws, it is the mean over them."""
    scores: tuple[float, ...]
    """The score of each question, in [0, 1]."""
    draws: tuple[float, ...]
    """The accuracy of each draw."""
    seconds: float
    """Seconds of `generate` for a question: the image tower, the prefill and the new tokens."""
    image_tokens: float
    """Image tokens of a prompt, in the mean over the batch of the prefill."""
    kept_tokens: float
    """Image tokens of a prompt that a layer of the decoder runs on, in the mean over its layers."""
    prefill: Prefill
    schedule: list[dict[str, Any]] = field(default_factory=list)
    """What reduces tokens; [] if nothing does."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "VlmScore":
        """Make a score from what `asdict` returns."""
        return cls(
            **{
                **values,
                "accuracy": Accuracy(**values["accuracy"]),
                "scores": tuple(values["scores"]),
                "draws": tuple(values["draws"]),
                "prefill": Prefill(**values["prefill"]),
            }
        )


@dataclass(frozen=True)
class VlmCell(Results):
    """A model with one row of the table, on one set, at one budget."""

    model: str
    """Its id on the Hub, or the name of its folder."""
    set: str
    title: str
    """What the tables call the set."""
    source: str
    """Where the questions are from."""
    metric: str
    """How an answer is scored, one of `SCORES`."""
    place: str
    name: str
    """The place and the name of the row."""
    budget: Budget
    settings: VlmSettings
    status: str
    """`done`, `failed` or `out_of_reach`."""
    reason: str = ""
    """Why there is no score."""
    score: VlmScore | None = None
    environment: Environment = field(default_factory=Environment)

    @property
    def is_done(self) -> bool:
        """Whether it has a score."""
        return self.status == DONE

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "VlmCell":
        rest = {name: value for name, value in values.items() if name not in ENVIRONMENT_FIELDS}
        score = rest.pop("score")
        return cls(
            budget=Budget(**rest.pop("budget")),
            settings=VlmSettings(**rest.pop("settings")),
            score=None if score is None else VlmScore.from_dict(score),
            environment=Environment.from_dict(values),
            **rest,
        )

    def to_dict(self) -> dict[str, Any]:
        values = {name: value for name, value in asdict(self).items() if name != "environment"}
        return {**values, **self.environment.to_dict()}
