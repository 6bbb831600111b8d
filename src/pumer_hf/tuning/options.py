"""What can be asked of a tuning."""

from dataclasses import dataclass, field
from typing import Any

from ..bench.contenders import BenchOptions
from ..models.loading import SAVED

EXAMPLES = 500
"""How many rows each schedule is evaluated on."""


@dataclass(frozen=True)
class TuneOptions:
    """What [`tune`] is asked for.

    Args:
        speed: how many times as fast as unreduced the model shall be, above 1.
        reduction: the schedule whose ratios are scaled, in any form that [`parse_reduction`] takes. Layers and ratios
            may be left out: they are then the usual ones of the method. Default: the checkpoint's own schedule; if it
            has none, that of PuMer. With data, None stands for several schedules, which are compared.
        measuring: how to measure. Its `batch_size` must be a number. The speed alone is measured, so `latency` and
            `memory` change nothing.
        text_length: tokens per text; default: as in the training of an encoder, 32 for a decoder.
        image_tokens: image tokens per prompt of a decoder; default: one usual image.
        data: images with questions, on which schedules are compared: a file `.jsonl` or `.csv`, a folder, the id of a
            data set on the Hub, or `digit_scenes`, also with a setting (`digit_scenes:cluttered`).
        split: the split of a data set or of the digit scenes.
        image_column: the column of the images.
        text_column: the column of the questions; default: the first usual name that is there.
        examples: how many rows to evaluate on.
    """

    speed: float
    reduction: Any = SAVED
    measuring: BenchOptions = field(default_factory=BenchOptions)
    text_length: int | None = None
    image_tokens: int | None = None
    data: str | None = None
    split: str = "validation"
    image_column: str = "image"
    text_column: str | None = None
    examples: int = EXAMPLES

    def __post_init__(self) -> None:
        if isinstance(self.speed, bool) or not isinstance(self.speed, (int, float)) or not 1 < self.speed < 1000:
            raise ValueError(f"speed={self.speed!r}: must be a number above 1, how many times as fast as unreduced")
        if self.measuring.batch_size is None:
            raise ValueError("batch_size='auto': give a number, since a schedule is found for one batch size")
        if self.examples < 1:
            raise ValueError(f"examples={self.examples}: must be at least 1")
