"""`pumer-hf export` writes a checkpoint as an ONNX file, compares it with PyTorch, and times both."""

import copy
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..bench.contenders import BenchOptions, checked_text_length, random_inputs, stock_contender
from ..bench.progress import Progress
from ..bench.throughput import compare_throughput, expected_seconds, forward_seconds
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.loading import SAVED, load_checkpoint_model
from ..results import Environment, Throughput, check_results_file
from ..results.environment import installed
from .onnx_file import OnnxModel, check_dest, export_onnx, quantize_onnx, require_onnx
from .report import Difference, ExportedFile, ExportReport

CHECKED = 16
"""How many examples a file is compared with PyTorch on."""
BATCH_SIZES = (1, 3, CHECKED)
"""The sizes of the batches in which they are compared. The batch of the export has 2 examples."""
TOLERANCE = 1e-3
"""How far the logits of most examples may be from PyTorch's."""


def export_checkpoint(
    source: str,
    dest: str | Path,
    *,
    reduction: Any = SAVED,
    int8: bool = False,
    text_length: int | None = None,
    batch_size: int = 8,
    seconds: float = 10.0,
    output: str | Path | None = None,
) -> list[str]:
    """Export a checkpoint, check the file, and time it together with PyTorch.

    If the model reduces tokens, both are also timed unreduced. If transformers has this model, that is timed too.

    Args:
        source: a folder, or an id on the Hub.
        dest: the file, `*.onnx`.
        reduction: another schedule than the checkpoint's, in any form that [`parse_reduction`] takes.
        int8: whether to write and compare a second file, `*.int8.onnx` ([`quantize_onnx`]).
        text_length: tokens per text, fixed in the file; default: as in the training of the model.
        batch_size: examples per forward in the timing; the file takes any number.
        seconds: how long to time.
        output: a JSON file for the results.

    Returns:
        Lines to print: a table and notes.

    Raises:
        ValueError: the model has no head, a value is out of range, or the file computes other logits than PyTorch.
        FileNotFoundError: there is no folder for `dest` or `output`.
        ImportError: the extra `onnx` is not installed.
    """
    onnxruntime, dest = require_onnx(), Path(dest)
    check_dest(dest)
    check_results_file(output)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    model = load_checkpoint_model(source, reduction).to("cpu").float()
    text_length = checked_text_length(model, text_length)
    print(f"Writing {dest}, and comparing it with PyTorch", file=sys.stderr)
    models, files, differences = write_files(model, dest, text_length, int8)
    report = ExportReport(
        checkpoint=source,
        reduction=model.config.reduction,
        pooled_only=model.config.pooled_only,
        text_length=text_length,
        files=files,
        difference=differences,
        throughput=measure_speed(models, batch_size, text_length, seconds),
        environment=environment_of(onnxruntime),
    )
    return [*report.lines(), report.finish(output)]


def environment_of(onnxruntime: ModuleType) -> Environment:
    """Return the environment of this process, with the versions of the packages that ONNX needs."""
    current = Environment.current()
    of_onnx = {"onnxruntime": onnxruntime.__version__, **installed(("onnx", "onnxscript"))}
    return replace(current, versions={**current.versions, **of_onnx})


def write_files(
    model: PuMerPreTrainedModel, dest: Path, text_length: int, int8: bool
) -> tuple[dict[str, nn.Module], dict[str, ExportedFile], dict[str, Difference]]:
    """Write the ONNX file, and the int8 file if it is wanted, and check them.

    Returns:
        Three dicts, each by name: the models with PyTorch's first, the files, and their differences from PyTorch.
    """
    export_onnx(model, dest, text_length)
    paths = {"onnxruntime": dest}
    exported = {"onnxruntime": OnnxModel(dest)}
    differences = {"onnxruntime": difference(exported["onnxruntime"], model, text_length)}
    require_same(dest, differences["onnxruntime"])
    if int8:
        paths["int8"] = dest.with_suffix(".int8.onnx")
        quantize_onnx(dest, paths["int8"])
        exported["int8"] = OnnxModel(paths["int8"])
        differences["int8"] = difference(exported["int8"], model, text_length)
    files = {name: ExportedFile.of(path) for name, path in paths.items()}
    return {"pytorch": model, **exported}, files, differences


def padded_inputs(model: PuMerPreTrainedModel, batch_size: int, text_length: int) -> dict[str, Tensor]:
    """Return [`random_inputs`] whose texts have several lengths and are padded."""
    inputs = random_inputs(model, batch_size, text_length)
    lengths = text_length - 3 * torch.arange(batch_size) % text_length
    inputs["attention_mask"] = (torch.arange(text_length) < lengths.unsqueeze(1)).long()
    return inputs


@torch.inference_mode()
def difference(model: OnnxModel, reference: PuMerPreTrainedModel, text_length: int) -> Difference:
    """Measure how far the logits of an ONNX model are from PyTorch's on `CHECKED` random examples, in several batches.

    Two tokens of nearly the same saliency may change places because of the last bits of a float32. In PyTorch alone,
    another batch size can do that too. So single examples may differ more. An error in the file changes all examples.
    """
    inputs = padded_inputs(reference, CHECKED, text_length)
    wanted = reference(**inputs).logits
    distances, same = [], []
    for size in BATCH_SIZES:
        parts = zip(*(value.split(size) for value in inputs.values()), strict=True)
        found = torch.cat([model(**dict(zip(inputs, part, strict=True))) for part in parts])
        distances.append((found - wanted).abs().amax(dim=1))
        same.append((found.argmax(dim=1) == wanted.argmax(dim=1)).float().mean().item())
    return Difference(
        examples=CHECKED,
        median=max(median(of_size.tolist()) for of_size in distances),
        largest=torch.cat(distances).max().item(),
        spread=wanted.std().item(),
        same_argmax=mean(same) if wanted.shape[1] > 1 else None,
    )


def require_same(path: Path, found: Difference) -> None:
    """Remove the file and raise `ValueError`, if its logits are not PyTorch's."""
    if not found.median <= TOLERANCE:  # so written, it is also true for NaN
        path.unlink()
        raise ValueError(
            f"{path} was removed: its logits differ from PyTorch's by {found.median:.2g}, which is more than "
            f"{TOLERANCE}"
        )


def measure_speed(models: dict[str, nn.Module], batch_size: int, text_length: int, seconds: float) -> Throughput:
    """Measure the throughput of models in one interleaved run, relative to the first one.

    The run also has stock transformers' model, if there is one. If PyTorch's model reduces tokens, the run has the
    unreduced model too, first in PyTorch and then in onnxruntime; both come before `models`.

    Args:
        models: the models by name, PyTorch's first.
        batch_size: examples per forward.
        text_length: tokens per text.
        seconds: how long to measure.
    """
    model = models["pytorch"]
    assert isinstance(model, PuMerPreTrainedModel)
    full = model
    unreduced: dict[str, nn.Module] = {}
    if model.reduction is not None:
        full = copy.deepcopy(model)
        full.set_reduction(None)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "unreduced.onnx"
            export_onnx(full, path, text_length)
            unreduced = {"pytorch_unreduced": full, "onnxruntime_unreduced": OnnxModel(path)}
    stock = stock_contender(full, text_length, BenchOptions())
    others: dict[str, nn.Module] = {} if stock is None else {"stock": stock.run}
    everyone = {**unreduced, **models, **others}
    reduced_inputs, full_inputs = (random_inputs(one, batch_size, text_length) for one in (model, full))
    inputs = {name: reduced_inputs if name in models else full_inputs for name in everyone}
    times: dict[str, Any] = {"warmup": 2, "seconds": seconds}
    expected = expected_seconds(sum(forward_seconds(everyone, inputs).values()), **times)
    with Progress(f"Timing {len(everyone)} models at batch {batch_size}", expected) as progress:
        progress.begin("throughput")
        return compare_throughput(everyone, reduced_inputs, own_inputs=inputs, on_round=progress.move, **times)
