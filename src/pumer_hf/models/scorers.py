"""Scorers of `lookahead` in folders of their own: saved apart from the model, and loaded onto it.

Such a folder has two files: `reducer.safetensors`, with the weights of the scorer and a fingerprint of the base model,
and `reducer.json`, with a [`ScorerRecord`]. Nothing in them is code.
"""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, cast, get_origin

import torch
from accelerate.utils import align_module_device
from huggingface_hub.errors import HFValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils.hub import cached_file

from ..folders import whole_folder, write_json
from ..reading import check_safetensors, one_line, read_object
from ..reducers import ReductionConfig, TokenReducer, parse_method
from ..reducers.lookahead import LookaheadReducer, LookaheadReductionConfig
from ..reducers.scoring import ScoringConfig, ScoringReducer
from .offload import loaded_state_dict

SCORER_WEIGHTS, SCORER_CONFIG = "reducer.safetensors", "reducer.json"
FINGERPRINT = "fingerprint"
"""The name of the fingerprint among the weights of a scorer."""
NUM_SAMPLES = 256
"""About how many weights a fingerprint holds."""
OURS = "pumer_"
"""The beginning of the `model_type` of our classes. A scorer fits a stock model and ours with the same weights."""
NO_BASE = ("reducer", "pooler")
"""Modules of a backbone whose weights say nothing about the states of its layers."""


class Backbone(Protocol):
    """What this file needs of a model without its head."""

    config: Any
    name_or_path: str

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def token_reduction(self) -> Any: ...

    def make_reducer(self, part: ReductionConfig) -> TokenReducer: ...


@dataclass(frozen=True)
class ScorerRecord:
    """What `reducer.json` says about a scorer.

    Args:
        part: the schedule that it was trained with, without `weights`. `form`, `rank`, `target_layer`, `site` and
            `layers` belong to the scorer. The other fields may be different where it is used.
        image_width: width of the image tokens that it reads.
        text_width: width of the words that it reads.
        base: the model behind which it was trained: an id on the Hub, or a folder.
        base_type: the `model_type` of this model.
        trained_on: the data, in words.
        steps: steps of the training.

    Raises:
        ValueError: the part is not one of `lookahead`.
    """

    part: dict[str, Any]
    image_width: int
    text_width: int
    base: str
    base_type: str
    trained_on: str
    steps: int

    def __post_init__(self) -> None:
        for item in fields(self):
            value: Any = getattr(self, item.name)
            wanted: Any = get_origin(item.type) or item.type
            if type(value) is not wanted:
                raise ValueError(f"{item.name}={value!r}: must be of the type {wanted.__name__}")
        if not isinstance(parse_method(self.part), LookaheadReductionConfig):
            raise ValueError(f"part.method={self.part.get('method')!r}: must be 'lookahead'")

    @property
    def config(self) -> LookaheadReductionConfig:
        """The schedule that the scorer was trained with."""
        config = parse_method(self.part)
        assert isinstance(config, LookaheadReductionConfig), "`__post_init__` has checked it"
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ScorerRecord":
        """Make a record from what `to_dict` returns.

        Raises:
            ValueError: a field is missing, unknown or wrong; the message names it.
        """
        names = {item.name: item for item in fields(cls)}
        missing, unknown = sorted(names.keys() - values.keys()), sorted(values.keys() - names.keys())
        if missing or unknown:
            problem = f"{', '.join(missing)} is missing" if missing else f"{', '.join(unknown)} is unknown"
            raise ValueError(f"not the record of a scorer, whose fields are {', '.join(names)}: {problem}")
        return cls(**values)


@torch.no_grad()
def fingerprint(model: nn.Module) -> Tensor:
    """Return some weights of a model without its head, by which it is recognised.

    They are spread evenly over its matrices, in the order of their names. Embeddings are left out, because their sizes
    may change with the images and the vocabulary. So are reducers and poolers.

    Args:
        model: the model without its head. Its weights may be offloaded.

    Returns:
        float32 (n,), on the CPU.
    """
    found: dict[str, nn.Module] = {}
    for prefix, module in model.named_modules():
        if isinstance(module, nn.Embedding) or not set(NO_BASE).isdisjoint(prefix.split(".")):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim >= 2 and "position" not in name:
                found[f"{prefix}.{name}"] = module
    per_matrix = -(-NUM_SAMPLES // max(len(found), 1))
    samples = []
    for path, module in sorted(found.items()):
        with align_module_device(module):
            matrix = module.get_parameter(path.rpartition(".")[2])
            places = torch.linspace(0, matrix.numel() - 1, per_matrix + 2, dtype=torch.float64)[1:-1].long()
            samples.append(matrix.reshape(-1)[places.to(matrix.device)].float().cpu())
    return torch.cat(samples) if samples else torch.empty(0)


def same_base(one: Tensor, other: Tensor) -> bool:
    """Return whether two fingerprints are those of the same weights, in any floating-point type.

    A model that was trained further is another base: at most 1 % of the weights may differ by more than 1 %.

    Args:
        one: float32 (n,).
        other: float32 (m,).
    """
    if one.shape != other.shape:
        return False
    return bool((~torch.isclose(one, other, rtol=1e-2, atol=1e-6)).float().mean() <= 1e-2)


def save_scorer(model: Backbone, folder: str | Path, *, trained_on: str, steps: int, site: str | None = None) -> None:
    """Save the scorer of a model in a folder of its own. The files are written whole or not at all.

    Args:
        model: a model that reduces tokens by `lookahead`, with any head or none.
        folder: it is made if there is none. Its other files stay.
        trained_on: the data of the training, in words.
        steps: steps of the training.
        site: the site of the scorer; None if the model has one scorer.

    Raises:
        ValueError: the model has no scorer there, or has several and `site` is None.
    """
    reduction = model.token_reduction
    found = [reducer for reducer in reduction.part_reducers if isinstance(reducer, LookaheadReducer)]
    found = [reducer for reducer in found if site in (None, reducer.config.site)]
    if len(found) != 1:
        places = " and ".join(repr(reducer.config.site) for reducer in found) or "no site"
        raise ValueError(f"site={site!r}: the model has a scorer at {places}: name the site of one")
    (reducer,) = found
    image_width, text_width = widths(reducer)
    base = reduction.model
    record = ScorerRecord(
        part=replace(reducer.config, weights=None).to_dict(),
        image_width=image_width,
        text_width=text_width,
        base=base.name_or_path or type(base).__name__,
        base_type=base.config.model_type,
        trained_on=trained_on,
        steps=steps,
    )
    weights = {name: value.cpu().contiguous() for name, value in loaded_state_dict(reducer).items()}
    with whole_folder(folder) as made:
        save_file({**weights, FINGERPRINT: fingerprint(base)}, made / SCORER_WEIGHTS)
        write_json(made / SCORER_CONFIG, record.to_dict())


def load_record(source: str, where: str | None = None) -> tuple[ScorerRecord, dict[str, Tensor]]:
    """Read the two files of a scorer.

    Args:
        source: a folder, or an id on the Hub.
        where: the name of the source in messages; default: the field of the schedule.

    Returns:
        The record, and the weights with the fingerprint.

    Raises:
        ValueError: there is no such folder and no such id, or a file is missing or broken.
    """
    where = where or f"reduction.weights={source!r}"
    try:
        paths = [Path(str(cached_file(source, name))) for name in (SCORER_CONFIG, SCORER_WEIGHTS)]
    except (OSError, HFValidationError) as error:
        raise ValueError(
            f"{where}: there is no scorer there: give a folder with {SCORER_CONFIG} and {SCORER_WEIGHTS}, or a Hub id "
            f"({one_line(error)})"
        ) from error
    values = read_object(paths[0])
    check_safetensors(paths[1])
    try:
        return ScorerRecord.from_dict(values), load_file(paths[1])
    except ValueError as error:
        raise ValueError(f"{where}: {SCORER_CONFIG}: {error}") from error


def load_scorer(model: Backbone, part: ScoringConfig) -> ScoringReducer:
    """Make the reducer for a part of a schedule, with the scorer that its `weights` name.

    Args:
        model: the model without its head, loaded.
        part: a part of a method with a scorer, with `weights`.

    Returns:
        The reducer, on the device and in the dtype of the model. Its config has the form, the rank and the target
        layer of the scorer, and no `weights`.

    Raises:
        ValueError: there is no such scorer; or it has another form, place, width or base than the part and the model.
    """
    assert part.weights is not None, "the part names a scorer"
    where = f"reduction.weights={part.weights!r}"
    record, weights = load_record(part.weights)
    learned = record.config
    known = replace(part, weights=None)
    if known.place == learned.place:
        known = known.with_form_of(learned)
    for name in ("site", "layers", "form", "rank"):
        wanted, value = getattr(known, name), getattr(learned, name)
        if wanted != value:
            raise ValueError(f"reduction.{name}={wanted!r}: the scorer of {where} has {name}={value!r}: use this")
    reducer = model.make_reducer(known)
    assert isinstance(reducer, ScoringReducer), "the part has its method"
    _check_base(model, record, weights.pop(FINGERPRINT, None), widths(reducer), where)
    wanted_shapes = {name: value.shape for name, value in reducer.state_dict().items()}
    if wanted_shapes != {name: value.shape for name, value in weights.items()}:
        names = sorted(wanted_shapes.keys() ^ weights.keys()) or sorted(wanted_shapes)
        raise ValueError(f"{where}: {SCORER_WEIGHTS} does not fit {SCORER_CONFIG} ({names[0]}): copy both again")
    reducer.load_state_dict(weights)
    return reducer.to(device=model.device, dtype=model.dtype)


def widths(reducer: ScoringReducer) -> tuple[int, int]:
    """Return the widths of the image tokens and of the words that a scorer reads."""
    sides = (reducer.scorer.image, reducer.scorer.text)
    image_width, text_width = (int(side.get_parameter("0.weight").shape[0]) for side in sides)
    return image_width, text_width


def _check_base(
    model: Backbone, record: ScorerRecord, known: Tensor | None, found_widths: tuple[int, int], where: str
) -> None:
    """Raise `ValueError` if a scorer was trained behind another model than this one."""
    name = model.name_or_path or type(model).__name__
    trained = f"{where}: its scorer was trained for {record.base!r}"
    advice = f"give a scorer of this model, or train one with `pumer-hf train-scorer {name} --data ...`"
    if record.base_type.removeprefix(OURS) != model.config.model_type.removeprefix(OURS):
        raise ValueError(
            f"{trained}, a model of type {record.base_type!r}, but {name!r} is of type {model.config.model_type!r}: "
            f"{advice}"
        )
    if found_widths != (record.image_width, record.text_width):
        raise ValueError(
            f"{trained}, with image tokens of width {record.image_width} and words of width {record.text_width}, but "
            f"{name!r} has {found_widths[0]} and {found_widths[1]}: {advice}"
        )
    if known is None or not same_base(known, fingerprint(cast(nn.Module, model))):
        raise ValueError(f"{trained}, but {name!r} has other weights: {advice}")


def source_of(part: ReductionConfig | None) -> str | None:
    """Return the folder or the Hub id from which a part of a schedule wants its weights; None if from nowhere."""
    return part.weights if isinstance(part, ScoringConfig) else None


def untrained_error(part: ReductionConfig, name: str) -> ValueError:
    """Return the error of a part whose method must have been trained, in a model that has not learned it.

    Args:
        part: the part.
        name: where the model was loaded from; empty if nowhere.
    """
    return ValueError(
        f"reduction.weights: method {part.method!r} needs a trained scorer: give `weights`, or train one with "
        f"`pumer-hf train-scorer {name or 'MODEL'} --data ...`"
    )
