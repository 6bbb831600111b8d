"""The settings in the tables of PuMer's paper, and the figures that the paper reports for them."""

from dataclasses import dataclass
from typing import Any

from pumer_hf.models.families import preset


@dataclass(frozen=True)
class Row:
    """A row of a table: a model, and what the paper says about it.

    Args:
        label: the name of the row.
        backbone: `"vilt"` or `"meter"`.
        task: the paper's name of the task, which is an old name of ours.
        reduction: the schedule; None if the model reduces nothing.
        image_size: side of the image in pixels.
        throughput: the throughput as a multiple of the original model's; None if the paper does not report it.
        memory_saved: the part of the original model's peak memory that is saved; None if the paper does not report it.
        gflops: the GFLOPs of the original model and of this one; None if the paper does not report them.
    """

    label: str
    backbone: str
    task: str
    reduction: dict[str, Any] | None
    image_size: int = 384
    throughput: float | None = None
    memory_saved: float | None = None
    gflops: tuple[float, float] | None = None


def _task_row(backbone: str, task: str, throughput: float, memory_saved: float) -> Row:
    label = f"{backbone}/{task}"
    return Row(label, backbone, task, preset(backbone, task), throughput=throughput, memory_saved=memory_saved)


def _resolution(size: int, throughput: float, memory_saved: float, reduced: bool = False) -> Row:
    schedule = preset("meter", "vqav2") if reduced else None
    label = f"{'PuMer' if reduced else 'unreduced'}, {size} px"
    return Row(label, "meter", "vqav2", schedule, size, throughput, memory_saved)


def _choice(layers: list[int], prune: float, image: float, text: float, throughput: float) -> Row:
    label = f"layers {','.join(map(str, layers))}; prune {prune}, merge image {image}, text {text}"
    ratios = {"prune_ratio": prune, "image_merge_ratio": image, "text_merge_ratio": text}
    return Row(label, "vilt", "snli_ve", {"method": "pumer", "layers": layers, **ratios}, throughput=throughput)


def _gflops_row(backbone: str, task: str, original: float, pumer: float) -> Row:
    return Row(f"{backbone}/{task}", backbone, task, preset(backbone, task), gflops=(original, pumer))


TABLES: dict[int, tuple[Row, ...]] = {
    1: (
        _task_row("meter", "retrieval", 1.81, 0.38),
        _task_row("meter", "vqav2", 1.82, 0.38),
        _task_row("meter", "snli_ve", 2.07, 0.43),
        _task_row("meter", "nlvr2", 1.79, 0.38),
        _task_row("vilt", "retrieval", 1.78, 0.46),
        _task_row("vilt", "vqav2", 1.76, 0.45),
        _task_row("vilt", "snli_ve", 2.01, 0.51),
        _task_row("vilt", "nlvr2", 1.74, 0.45),
    ),
    2: (
        _resolution(192, 4.23, 0.75),
        _resolution(224, 3.48, 0.66),
        _resolution(256, 2.67, 0.54),
        _resolution(320, 1.62, 0.37),
        _resolution(320, 2.86, 0.59, reduced=True),
        _resolution(384, 1.82, 0.38, reduced=True),
    ),
    4: (
        _choice([2, 5, 8], 0.1, 0.3, 0.2, 1.77),
        _choice([2, 5, 8], 0.3, 0.3, 0.2, 2.04),
        _choice([2, 5, 8], 0.1, 0.3, 0.5, 1.89),
        _choice([2, 5, 8], 0.1, 0.5, 0.2, 2.12),
        _choice([2], 0.1, 0.3, 0.2, 1.43),
        _choice([2, 4], 0.1, 0.3, 0.2, 1.69),
        _choice([2, 4, 6], 0.1, 0.3, 0.2, 1.80),
        _choice([2, 3, 4], 0.2, 0.2, 0.2, 2.03),
        _choice([7, 8, 9], 0.2, 0.2, 0.2, 1.31),
        _choice([2, 4, 6, 8], 0.1, 0.3, 0.2, 2.01),
    ),
    7: (
        _gflops_row("meter", "vqav2", 92, 64.7),
        _gflops_row("meter", "snli_ve", 92, 59),
        _gflops_row("meter", "nlvr2", 184, 131),
        _gflops_row("vilt", "vqav2", 16, 8.7),
        _gflops_row("vilt", "snli_ve", 16, 7.7),
        _gflops_row("vilt", "nlvr2", 32, 17.4),
    ),
}
"""The tables of PuMer (https://aclanthology.org/2023.acl-long.721) by number. The paper measured speed and memory on a
GTX 1080 Ti (ViLT) and an A40 (METER)."""
