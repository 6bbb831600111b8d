"""The models of a benchmark. Weights and inputs may be random, since the cost of a forward depends on shapes alone."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch._inductor import config as inductor_config
from transformers import PreTrainedModel

from ..encoding import checkpoint_record
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.encoders.heads import num_images
from ..models.families import family_of
from ..reducers.mass import check_fixed_lengths

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MATMUL_PRECISIONS = ("highest", "high", "medium")
"""The values that `torch.set_float32_matmul_precision` takes."""
COMPILATIONS = 64
"""How often torch may compile a class, over all models and batch sizes of a benchmark. At more, it raises an error."""


@dataclass(frozen=True)
class BenchOptions:
    """How a benchmark measures.

    Args:
        device: `"cpu"` or `"cuda"`.
        dtype: the precision of our models, one of `DTYPES`.
        compile: whether to time our models compiled ([`compiled`]).
        matmul_precision: the precision of float32 products, one of `MATMUL_PRECISIONS`. In compiled code on a CPU,
            `"high"` takes oneDNN's kernels instead of MKL's. They round to TF32 on processors that have it. On other
            processors they are as exact as MKL's.
        batch_size: examples per forward. None: the batch grows until a larger one is no faster.
        seconds: how long to measure the throughput. The latency takes half of it. Both take at least five rounds.
        latency: whether to measure the latency at batch 1.
        memory: whether to measure the peak memory.
        pooled_only: whether to set `config.pooled_only` in our models, also in the unreduced one.
    """

    device: str = "cpu"
    dtype: str = "float32"
    compile: bool = False
    matmul_precision: str = "highest"
    batch_size: int | None = 8
    seconds: float = 10.0
    latency: bool = True
    memory: bool = True
    pooled_only: bool = False

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device={self.device!r}: choose cpu or cuda")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device='cuda': torch finds no GPU here")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r}: choose one of {', '.join(DTYPES)}")
        if self.matmul_precision not in MATMUL_PRECISIONS:
            raise ValueError(
                f"matmul_precision={self.matmul_precision!r}: choose one of {', '.join(MATMUL_PRECISIONS)}"
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}: must be at least 1")
        if not self.seconds > 0:
            raise ValueError(f"seconds={self.seconds}: must be above 0")


@dataclass(frozen=True)
class Contender:
    """A model in a benchmark."""

    eager: PreTrainedModel
    """The model whose FLOPs and memory are counted. It is in eval mode and on its device."""
    run: nn.Module
    """The model that is timed: the same one, or the compiled one."""
    inputs_of: PuMerPreTrainedModel
    """The model of ours, on the same device, that takes the same inputs."""
    text_length: int
    """Tokens per text; there is no padding."""

    def inputs(self, batch_size: int) -> dict[str, Tensor]:
        """Return a batch as its forward takes it."""
        inputs = random_inputs(self.inputs_of, batch_size, self.text_length)
        dtype = self.eager.dtype
        return {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}


def contender(model: PuMerPreTrainedModel, text_length: int, options: BenchOptions) -> Contender:
    """Return a contender for one of our models: on the device, in the precision and compiled as the options say."""
    if options.compile:
        check_fixed_lengths(model.token_reduction.part_configs, "a compiled model has fixed shapes")
    model = model.to(device=options.device, dtype=DTYPES[options.dtype]).eval()
    model.config.pooled_only |= options.pooled_only
    return Contender(model, compiled(model) if options.compile else model, model, text_length)


def at_image_size(one: Contender, image_size: int) -> Contender:
    """Return one of our models for square images of another side, not compiled. It shares all other weights."""
    shared = {id(weight): weight for weight in one.eager.parameters()}
    model = copy.deepcopy(one.inputs_of, shared)
    model.resize_images(image_size)
    return replace(one, eager=model, run=model, inputs_of=model)


def compiled(model: nn.Module) -> nn.Module:
    """Compile a whole model for inference with `torch.compile`, again for each batch size.

    The compilation happens at the first call. Make that call under [`torch_options`].
    """
    torch._dynamo.config.cache_size_limit = COMPILATIONS
    return torch.compile(model, fullgraph=True, dynamic=False)  # type: ignore[return-value]


@contextmanager
def torch_options(options: BenchOptions) -> Iterator[None]:
    """Set two global options of torch while a benchmark runs.

    One is the precision of float32 products. The other makes compiled code freeze the weights on a CPU: it stores them
    in the order in which its matrix products read them.
    """
    # `torch.compile` has the second option too. There it does nothing: the weights are inputs by then, not constants.
    with matmul_precision(options.matmul_precision), inductor_config.patch(freezing=options.device == "cpu"):
        yield


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Set the precision of float32 products inside a `with` block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def stock_contender(model: PuMerPreTrainedModel, text_length: int, options: BenchOptions) -> Contender | None:
    """Return transformers' own model as a contender: not compiled, and in float32 on a CPU.

    Return None if transformers has no such model.
    """
    name = family_of(model.config.model_type).stock_classes.get(type(model))
    if name is None:
        return None
    stock_class = getattr(transformers, name)
    config_class = stock_class.config_class
    names = config_class().to_dict().keys() - {"model_type", "architectures", "transformers_version"}
    values: dict[str, Any] = {name: value for name, value in model.config.to_dict().items() if name in names}
    stock = stock_class(config_class(**values)).to(options.device).eval()
    if options.device == "cuda":
        stock = stock.to(DTYPES[options.dtype])
    return Contender(stock, stock, model, text_length)


def checked_text_length(model: PuMerPreTrainedModel, text_length: int | None) -> int:
    """Return the tokens per text; for None, as many as in the training of the model ([`checkpoint_record`]).

    Raises:
        ValueError: the number is below 1, or the model does not take so many.
    """
    longest = model.config.max_text_length
    if text_length is None:
        text_length = checkpoint_record(model.name_or_path, longest).max_text_length
    if not 1 <= text_length <= longest:
        raise ValueError(f"text_length={text_length}: must be at least 1 and at most {longest}")
    return text_length


def random_inputs(model: PuMerPreTrainedModel, batch_size: int, text_length: int) -> dict[str, Tensor]:
    """Return inputs of one of our models, on its device: `input_ids` and `attention_mask` long (B, Lt), `pixel_values`
    float (B, 3, h, w), or (B, 2, 3, h, w) for NLVR2; and `image_saliency` for a method that needs it.
    """
    generator = torch.Generator().manual_seed(0)
    images = (batch_size,) if num_images(model) == 1 else (batch_size, num_images(model))
    ids = torch.randint(model.get_input_embeddings().num_embeddings, (batch_size, text_length), generator=generator)
    side = model.config.image_size
    pixels = torch.rand(*images, 3, side, side, generator=generator)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    if model.token_reduction.uses_prior:
        inputs["image_saliency"] = torch.rand(*images, side, side, generator=generator)
    return {name: value.to(model.device) for name, value in inputs.items()}
