"""Writes a model as an ONNX file, runs such a file, and quantises it."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from transformers.utils.logging import get_logger

from ..bench.contenders import checked_text_length, random_inputs
from ..encoding import EncodingRecord, checkpoint_record
from ..folders import check_file
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.encoders.heads import Head
from ..reducers.mass import check_fixed_lengths
from ..release import extra_command

logger = get_logger(__name__)

TRACED_BATCH = 2
"""How many examples the batch of an export has. With 1, the exporter would fix the batch size."""
METADATA = "pumer_hf.encoding"
"""The entry in a file's metadata that says how its inputs are made: an [`EncodingRecord`] as JSON."""
LINEAR = ("MatMul", "Gemm")
"""The operators of linear layers in an ONNX file."""


def require_onnx() -> Any:
    """Return the module onnxruntime; raise `ImportError` if it, onnx or onnxscript is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"ONNX needs onnx, onnxscript and onnxruntime: {extra_command('onnx')} ({error})") from error
    return onnxruntime


class _Logits(nn.Module):
    """A model with the inputs and the output that its file has."""

    def __init__(self, model: PuMerPreTrainedModel):
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor, image_saliency: Tensor | None = None
    ) -> Tensor:
        return self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            image_saliency=image_saliency,
        ).logits


@torch.no_grad()
def export_onnx(model: PuMerPreTrainedModel, dest: str | Path, text_length: int | None = None) -> None:
    """Write a model with its current reduction as an ONNX file, in eval mode.

    The file takes batches of any size. The text length and the image size are fixed in it, as the schedule depends on
    them. So pad every text to `text_length`, and make images square. An [`Encoder`] with the record of the file
    ([`OnnxModel.record`]) does both.

    The inputs of the file are `input_ids` and `attention_mask` int64 (B, text_length), and `pixel_values` float32
    (B, 3, h, w), or (B, 2, 3, h, w) for NLVR2, without padding. A method that needs a saliency map also has
    `image_saliency` float32 (B, h, w), or (B, 2, h, w). The output is `logits` float32 (B, num_labels).

    Args:
        model: any model with a head, in float32.
        dest: the file, `*.onnx`, in an existing folder. Weights of more than 2 GB go to a second file there.
        text_length: tokens per text; default: as in the training of the model.

    Raises:
        ValueError: the model has no head or is not in float32, or a value is out of range.
        FileNotFoundError: there is no folder for `dest`.
        ImportError: the extra `onnx` is not installed.
    """
    require_onnx()
    check_dest(dest)
    if not isinstance(model, Head):
        raise ValueError(f"{type(model).__name__} has no logits: export a model with a head")
    check_fixed_lengths(model.token_reduction.part_configs, "an ONNX file has fixed shapes")
    if model.dtype != torch.float32:
        raise ValueError(f"the model is in {model.dtype}: export it in float32, with model.float()")
    record = fixed_record(model, checked_text_length(model, text_length))
    inputs = random_inputs(model, TRACED_BATCH, record.max_text_length)
    batch = Dim("batch")
    training = model.training
    try:
        with _quiet():
            program = torch.onnx.export(
                _Logits(model).eval(),
                kwargs=inputs,
                output_names=["logits"],
                dynamic_shapes={name: {0: batch} for name in inputs},
                custom_translation_table={torch.ops.aten.sort.stable: stable_sort},
                dynamo=True,
                verbose=False,
            )
    finally:
        model.train(training)
    assert program is not None, "with `dynamo=True` the exporter returns a program"
    _drop_notes(program)
    program.model.metadata_props[METADATA] = json.dumps(record.to_dict())
    program.save(dest)


def fixed_record(model: PuMerPreTrainedModel, text_length: int) -> EncodingRecord:
    """Return how the inputs of a file are made: as in the training of the model, but with two differences.

    All texts have one length, and images are squares, since the file fixes the size of an image.
    """
    record = checkpoint_record(model.name_or_path, model.config.max_text_length)
    if record.keep_aspect_ratio:
        logger.warning(
            "keep_aspect_ratio=True: the model was trained on images that keep their shape, but the file takes squares"
        )
    return replace(record, max_text_length=text_length, padding="max_length", keep_aspect_ratio=False)


def _drop_notes(program: torch.onnx.ONNXProgram) -> None:
    """Remove the stack trace of each node, because it contains paths of this machine."""
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's messages about itself.

    They say that it makes deprecated calls, that torchvision is missing, that all inputs share one batch size, and
    what it does not optimise.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.. is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "# The axis name: batch will not be used", UserWarning)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def stable_sort(values: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """Translate `torch.sort(stable=True)` to ONNX; return the sorted values and their indices.

    PyTorch's exporter has no rule for it. `TopK` of all values is stable: of equal values, the one with the lower
    index comes first.
    """
    from onnxscript import opset18

    length = opset18.Gather(opset18.Shape(values), opset18.Constant(value_ints=[dim]))
    return opset18.TopK(values, length, axis=dim, largest=int(descending), sorted=1)


def check_dest(dest: str | Path) -> None:
    """Raise if no ONNX file can be written there."""
    path = Path(dest)
    if path.suffix != ".onnx":
        raise ValueError(f"DEST={str(dest)!r}: must be the name of a file that ends in .onnx")
    check_file(path, "DEST")


class OnnxModel(nn.Module):
    """An ONNX file that [`export_onnx`] wrote, run by onnxruntime on the CPU, with as many threads as torch uses.

    Args:
        path: the file.
    """

    def __init__(self, path: str | Path):
        super().__init__()
        onnxruntime = require_onnx()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that wait for work must not use the cores, which other code needs between two calls.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    @property
    def record(self) -> EncodingRecord:
        """The record that says how the inputs of the file are made. `Encoder(processor, record)` makes them."""
        return EncodingRecord.from_dict(json.loads(self.session.get_modelmeta().custom_metadata_map[METADATA]))

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the logits, float32 (B, num_labels), for the inputs that [`export_onnx`] lists."""
        (logits,) = self.session.run(["logits"], {name: value.numpy() for name, value in inputs.items()})
        return torch.from_numpy(logits)


def quantize_onnx(path: str | Path, dest: str | Path) -> None:
    """Write a copy of an ONNX file with linear layers in int8.

    Weights are quantised per channel, activations while the model runs (dynamic quantisation). Word embeddings,
    attention and the reduction stay in float32. A weight uses 7 of its 8 bits: processors without VNNI instructions
    add the products in 16 bits, which overflow with 8.

    Args:
        path: a file that [`export_onnx`] wrote.
        dest: the new file.
    """
    require_onnx()
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    # onnxruntime transposes weights, and then fails on their old shapes. No runtime needs these shapes.
    model.graph.ClearField("value_info")
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # without it, onnxruntime warns
    quantize_dynamic(
        model,
        dest,
        op_types_to_quantize=list(LINEAR),
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )
