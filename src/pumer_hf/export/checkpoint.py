"""`pumer-hf export`: a checkpoint as an ONNX file, checked against PyTorch and timed beside it."""

import copy
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor, nn

from ..bench.contenders import Settings, checked_text_length, random_inputs, stock_contender
from ..bench.cost import format_table, speed_note
from ..bench.environment import environment
from ..bench.output import check_output, finish
from ..bench.progress import Progress
from ..bench.throughput import compare_throughput, expected_seconds, forward_seconds
from ..figures import figure
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.loading import SAVED, load_checkpoint_model
from .onnx_file import OnnxModel, check_dest, export_onnx, quantize_onnx, require_onnx

CHECKED = 16
"""Examples on which a file is compared with PyTorch."""
BATCH_SIZES = (1, 3, CHECKED)
"""In which batches; the one of the export has 2."""
TOLERANCE = 1e-3
"""How far the logits of most examples may be from PyTorch's."""
LABELS = {
    "stock": "stock transformers",
    "pytorch_unreduced": "PyTorch, unreduced",
    "pytorch": "PyTorch",
    "onnxruntime_unreduced": "onnxruntime, unreduced",
    "onnxruntime": "onnxruntime",
    "int8": "onnxruntime, int8",
}
"""What the table calls the models of a report."""


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
    """Export a checkpoint, check the file, and time it beside PyTorch; both unreduced too, if the model reduces; and
    what transformers has of it.

    Args:
        source: a folder, or an id on the Hub.
        dest: the file, `*.onnx`.
        reduction: another schedule than the checkpoint's, in any form that [`parse_reduction`] takes.
        int8: write `*.int8.onnx` beside it too ([`quantize_onnx`]), and compare it.
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
    check_output(output)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    model = load_checkpoint_model(source, reduction).to("cpu").float()
    text_length = checked_text_length(model, text_length)
    print(f"Writing {dest}, and comparing it with PyTorch", file=sys.stderr)
    models, facts = write_files(model, dest, text_length, int8)
    report = {"checkpoint": source, "reduction": model.config.reduction, "pooled_only": model.config.pooled_only}
    report |= {"text_length": text_length, **facts}
    report["throughput"] = measure_speed(models, batch_size, text_length, seconds)
    report |= environment()
    report["versions"]["onnxruntime"] = onnxruntime.__version__
    report["versions"] |= {package: version(package) for package in ("onnx", "onnxscript")}
    return [*summary(report), finish(report, output)]


def write_files(
    model: PuMerPreTrainedModel, dest: Path, text_length: int, int8: bool
) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """Write the ONNX file, or both, and check them: the models by name, PyTorch's first, and what a report says of the
    files (`files`, `difference`).
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
    files = {name: describe_file(path) for name, path in paths.items()}
    return {"pytorch": model, **exported}, {"files": files, "difference": differences}


def padded_inputs(model: PuMerPreTrainedModel, batch_size: int, text_length: int) -> dict[str, Tensor]:
    """[`random_inputs`] with texts of several lengths, padded."""
    inputs = random_inputs(model, batch_size, text_length)
    lengths = text_length - 3 * torch.arange(batch_size) % text_length
    inputs["attention_mask"] = (torch.arange(text_length) < lengths.unsqueeze(1)).long()
    return inputs


@torch.inference_mode()
def difference(model: OnnxModel, reference: PuMerPreTrainedModel, text_length: int) -> dict[str, Any]:
    """How far the logits of an ONNX model are from those of PyTorch on `CHECKED` random examples, whatever the batches
    in which they come.

    Two tokens of nearly the same saliency may change places by the last bits of a float32, in another batch of PyTorch
    too. So single examples can be further away; an error in the file moves all.

    Returns:
        Plain JSON types: `examples`; `median`, over the examples, of the largest absolute difference of a logit, in
        the worst of the batch sizes; `largest`, over all of them; `spread`, the standard deviation of PyTorch's
        logits; and `same_argmax`, the part with the same highest logit, None for a model of one logit.
    """
    inputs = padded_inputs(reference, CHECKED, text_length)
    wanted = reference(**inputs).logits
    distances, same = [], []
    for size in BATCH_SIZES:
        parts = zip(*(value.split(size) for value in inputs.values()), strict=True)
        found = torch.cat([model(**dict(zip(inputs, part, strict=True))) for part in parts])
        distances.append((found - wanted).abs().amax(dim=1))
        same.append((found.argmax(dim=1) == wanted.argmax(dim=1)).float().mean().item())
    return {
        "examples": CHECKED,
        "median": max(median(of_size.tolist()) for of_size in distances),
        "largest": torch.cat(distances).max().item(),
        "spread": wanted.std().item(),
        "same_argmax": mean(same) if wanted.shape[1] > 1 else None,
    }


def require_same(path: Path, found: dict[str, Any]) -> None:
    """Raise `ValueError`, and remove the file, if its logits are not PyTorch's."""
    if not found["median"] <= TOLERANCE:  # NaN is not
        path.unlink()
        raise ValueError(
            f"{path} was removed: its logits differ from PyTorch's by {found['median']:.2g}, which is more than "
            f"{TOLERANCE}"
        )


def measure_speed(models: dict[str, nn.Module], batch_size: int, text_length: int, seconds: float) -> dict[str, Any]:
    """Throughput of `models` by name ([`compare_throughput`]), the first of which is PyTorch's; if it reduces tokens,
    beside the unreduced model in PyTorch, the first then, and in onnxruntime; and beside stock transformers.
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
    stock = stock_contender(full, text_length, Settings())
    others: dict[str, nn.Module] = {} if stock is None else {"stock": stock.run}
    everyone = {**unreduced, **models, **others}
    own, of_full = (random_inputs(one, batch_size, text_length) for one in (model, full))
    inputs = {name: own if name in models else of_full for name in everyone}
    times: dict[str, Any] = {"warmup": 2, "seconds": seconds}
    expected = expected_seconds(sum(forward_seconds(everyone, inputs).values()), **times)
    with Progress(f"Timing {len(everyone)} models at batch {batch_size}", expected) as progress:
        progress.begin("throughput")
        return compare_throughput(everyone, own, own_inputs=inputs, on_round=progress.move, **times)


def describe_file(path: Path) -> dict[str, Any]:
    """Name and size in MiB of a file, with the weights beside it if they are too large for it."""
    size = sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}.data")) if file.exists())
    return {"name": str(path), "mib": size / 2**20}


def summary(report: dict[str, Any]) -> list[str]:
    """A table of speeds and sizes, and what to know about it."""
    throughput, files = report["throughput"], report["files"]
    rows = [["", "examples/s", "speed", "file"]]
    for name, label in LABELS.items():
        if name in throughput:
            size = f"{files[name]['mib']:.1f} MiB" if name in files else ""
            speed = throughput[name]
            rows.append([label, figure(speed["examples_per_second"]), f"{speed['ratio']:.2f}x", size])
    notes = [speed_note(report)]
    for name, found in report["difference"].items():
        note = f"{LABELS[name]}: logits {found['median']:.2g} from PyTorch's (largest {found['largest']:.2g}, "
        note += f"spread {found['spread']:.2g})"
        if found["same_argmax"] is not None:
            note += f", {100 * found['same_argmax']:.0f} % with the same highest"
        notes.append(f"{note}, of {found['examples']} random examples.")
    if "onnxruntime_unreduced" in throughput:
        gain = throughput["onnxruntime"]["ratio"] / throughput["onnxruntime_unreduced"]["ratio"]
        notes.append(f"In onnxruntime, the reduction makes the model {gain:.2f} times as fast.")
    return [format_table(rows), *notes]
