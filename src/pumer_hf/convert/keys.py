"""Renaming of weights: tables from the names of each kind of checkpoint to ours.

In a table `#` stands for the number of a layer, `*` for `weight` or `bias`, `**` for anything. A fused projection is
mapped to three names: it holds query, key and value, one after the other.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

Table = Mapping[str, str | tuple[str, ...]]

HEADS = {
    "vqa_classifier": "vqa",
    "nlvr2_classifier": "nlvr2",
    "snli_classifier": "snli_ve",
    "ve_classifier": "snli_ve",
    "rank_output": "retrieval",
}
"""Heads of the original and the released checkpoints, and the task of each."""
PRETRAINING_HEADS = ("mlm_score.**", "mpp_score.**", "itm_score.**")
CLASSIFIER = "classifier"
"""The head of stock ViLT. Only the config says its task."""

_VILT_TEXT = "embeddings.text_embeddings."
_VILT_LAYER = "encoder.layer.#."
ORIGINAL_VILT: Table = {
    "text_embeddings.word_embeddings.weight": f"{_VILT_TEXT}word_embeddings.weight",
    "text_embeddings.position_embeddings.weight": f"{_VILT_TEXT}position_embeddings.weight",
    "text_embeddings.token_type_embeddings.weight": f"{_VILT_TEXT}token_type_embeddings.weight",
    "text_embeddings.LayerNorm.*": f"{_VILT_TEXT}LayerNorm.*",
    "token_type_embeddings.weight": "embeddings.token_type_embeddings.weight",
    "transformer.cls_token": "embeddings.cls_token",
    "transformer.pos_embed": "embeddings.position_embeddings",
    "transformer.patch_embed.proj.*": "embeddings.patch_embeddings.projection.*",
    "transformer.blocks.#.norm1.*": f"{_VILT_LAYER}layernorm_before.*",
    "transformer.blocks.#.attn.qkv.*": (
        f"{_VILT_LAYER}attention.attention.query.*",
        f"{_VILT_LAYER}attention.attention.key.*",
        f"{_VILT_LAYER}attention.attention.value.*",
    ),
    "transformer.blocks.#.attn.proj.*": f"{_VILT_LAYER}attention.output.dense.*",
    "transformer.blocks.#.norm2.*": f"{_VILT_LAYER}layernorm_after.*",
    "transformer.blocks.#.mlp.fc1.*": f"{_VILT_LAYER}intermediate.dense.*",
    "transformer.blocks.#.mlp.fc2.*": f"{_VILT_LAYER}output.dense.*",
    "transformer.norm.*": "layernorm.*",
    "pooler.dense.*": "pooler.dense.*",
}


def identity(table: Table) -> Table:
    """Return the table from our names to themselves."""
    names = [name for target in table.values() for name in ([target] if isinstance(target, str) else target)]
    return dict(zip(names, names, strict=True))


def meter_table(vision: str) -> Table:
    """Return the table of METER. `vision` is the prefix of the image tower."""
    block, ours = f"{vision}transformer.resblocks.#.", "vision_model.encoder.layers.#."
    tower: Table = {
        f"{vision}conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        f"{vision}class_embedding": "vision_model.embeddings.class_embedding",
        f"{vision}positional_embedding": "vision_model.embeddings.position_embedding.weight",
        f"{vision}ln_pre.*": "vision_model.pre_layrnorm.*",
        f"{block}ln_1.*": f"{ours}layer_norm1.*",
        f"{block}attn.in_proj_weight": tuple(f"{ours}self_attn.{part}_proj.weight" for part in "qkv"),
        f"{block}attn.in_proj_bias": tuple(f"{ours}self_attn.{part}_proj.bias" for part in "qkv"),
        f"{block}attn.out_proj.*": f"{ours}self_attn.out_proj.*",
        f"{block}ln_2.*": f"{ours}layer_norm2.*",
        f"{block}mlp.c_fc.*": f"{ours}mlp.fc1.*",
        f"{block}mlp.c_proj.*": f"{ours}mlp.fc2.*",
        f"{vision}ln_post.*": "vision_model.post_layernorm.*",
    }
    return {**tower, **_METER_TEXT, **_METER_CROSS}


_ROBERTA = (
    "embeddings.word_embeddings.weight",
    "embeddings.position_embeddings.weight",
    "embeddings.token_type_embeddings.weight",
    "embeddings.LayerNorm.*",
    *(f"encoder.layer.#.attention.self.{part}.*" for part in ("query", "key", "value")),
    "encoder.layer.#.attention.output.dense.*",
    "encoder.layer.#.attention.output.LayerNorm.*",
    "encoder.layer.#.intermediate.dense.*",
    "encoder.layer.#.output.dense.*",
    "encoder.layer.#.output.LayerNorm.*",
)
_METER_TEXT = {f"text_transformer.{name}": f"text_model.{name}" for name in _ROBERTA}
_CROSS_LAYER = {
    **{
        f"{theirs}.{name}.*": f"{ours}.{new}.*"
        for theirs, ours in (("attention", "self_attention"), ("crossattention", "cross_attention"))
        for name, new in (
            ("self.query", "query"),
            ("self.key", "key"),
            ("self.value", "value"),
            ("output.dense", "output"),
            ("output.LayerNorm", "layernorm"),
        )
    },
    "intermediate.dense.*": "feed_forward.intermediate.*",
    "output.dense.*": "feed_forward.output.*",
    "output.LayerNorm.*": "feed_forward.layernorm.*",
}
_METER_CROSS = {
    "token_type_embeddings.weight": "token_type_embeddings.weight",
    **{
        theirs.format(side): ours.format(side)
        for side in ("text", "image")
        for theirs, ours in (
            ("cross_modal_{}_transform.*", "{}_projection.*"),
            ("cross_modal_{}_pooler.dense.*", "{}_pooler.dense.*"),
            *((f"cross_modal_{{}}_layers.#.{old}", f"pairs.#.{{}}_layer.{new}") for old, new in _CROSS_LAYER.items()),
        )
    },
}

BERT_BUFFERS = ("text_embeddings.position_ids", "text_embeddings.token_type_ids")
ROBERTA_UNUSED = (
    "text_transformer.embeddings.position_ids",
    "text_transformer.embeddings.token_type_ids",
    "text_transformer.pooler.dense.*",
)
CLIP_TEXT = ("vit_model.token_embedding.weight", "vit_model.positional_embedding", "vit_model.ln_final.*")


@dataclass(frozen=True)
class Layout:
    """How the weights of one kind of checkpoint are named."""

    family: str
    """The name of a family: `"vilt"` or `"meter"`."""
    origin: str
    """`"original"`, `"released"` (with the code of PuMer) or `"stock"` (saved by transformers, or by this library)."""
    prefix: str
    """The prefix of the names of the backbone."""
    table: Table
    """From the names of the backbone, without the prefix, to our names."""
    dropped: tuple[str, ...]
    """Names in the backbone, without the prefix, that our models do not have: buffers, and parts that never run."""
    signature: str
    """How some names begin, after the prefix, in this layout only."""
    heads: Mapping[str, str]
    """From the name of each head to its task."""
    config_values: Callable[["Renamed", Mapping[str, Any], str], dict[str, Any]]
    """Returns the fields of our config. Arguments: the weights, the config of the checkpoint, the task."""
    image_processor: Callable[[Any], Any]
    """Makes the image processor that the checkpoint was trained with, from a [`ProcessorPlan`]."""
    resize: Callable[["Renamed", Any], None] | None = None
    """Resizes the weights to the image size of our config; None if the model takes images of any size."""

    def without_prefix(self) -> "Layout":
        """Return the layout of a backbone that was saved without a head, and so without a prefix."""
        return replace(self, prefix="")


@dataclass(frozen=True)
class Rule:
    """One line of a table, with its prefix."""

    source: str
    targets: tuple[str, ...]

    @staticmethod
    def match(template: str, name: str) -> tuple[str, ...] | None:
        """Return what the wildcards of `template` stand for in `name`; None if the name does not fit."""
        wildcards = {"**": ".*", "*": "(weight|bias)", "#": r"(\d+)"}
        parts = re.split(r"(\*\*|\*|#)", template)
        found = re.fullmatch("".join(wildcards.get(part, re.escape(part)) for part in parts), name)
        return None if found is None else found.groups()

    @staticmethod
    def fill(template: str, values: tuple[str, ...]) -> str:
        """Fill the wildcards of `template` with `values`."""
        parts = iter(values)
        return re.sub(r"[*#]", lambda _: next(parts), template)


class Renamed:
    """The weights of a checkpoint under our names.

    Args:
        weights: the weights under their names in the file.
        layout: the layout of the file.
    """

    def __init__(self, weights: Mapping[str, Tensor], layout: Layout):
        if layout.prefix and not any(name.startswith(layout.prefix) for name in weights):
            layout = layout.without_prefix()
        self.layout = layout
        self.backbone: dict[str, Tensor] = {}
        self.heads: dict[str, dict[str, Tensor]] = {}
        self.left_over: list[str] = []
        self._rules = [
            Rule(layout.prefix + source, (target,) if isinstance(target, str) else target)
            for source, target in layout.table.items()
        ]
        dropped = [layout.prefix + name for name in layout.dropped] + list(PRETRAINING_HEADS)
        for name, value in weights.items():
            if any(Rule.match(template, name) is not None for template in dropped):
                continue
            if not (self._add_to_head(name, value) or self._add_to_backbone(name, value)):
                self.left_over.append(name)

    def _add_to_head(self, name: str, value: Tensor) -> bool:
        for head, task in self.layout.heads.items():
            template = f"{head}.*" if head == "rank_output" else f"{head}.#.*"
            values = Rule.match(template, name)
            if values is not None:
                ours = Rule.fill("rank_output.*" if head == "rank_output" else f"{CLASSIFIER}.#.*", values)
                self.heads.setdefault(task, {})[ours] = value
                return True
        return False

    def _add_to_backbone(self, name: str, value: Tensor) -> bool:
        for rule in self._rules:
            values = Rule.match(rule.source, name)
            if values is not None:
                if value.ndim == 0 or value.shape[0] % len(rule.targets):
                    raise ValueError(f"{name} has shape {tuple(value.shape)}: it should hold query, key and value")
                # Copies, because safetensors writes no tensors that share memory.
                parts = [part.clone() for part in value.chunk(len(rule.targets))]
                for target, part in zip(rule.targets, parts, strict=True):
                    self.backbone[Rule.fill(target, values)] = part
                return True
        return False

    def source_name(self, name: str, task: str) -> str:
        """Return the name in the file of our weight `name`, in the backbone or in the head of `task`."""
        for rule in self._rules:
            for target in rule.targets:
                values = Rule.match(target, name)
                if values is not None:
                    return Rule.fill(rule.source, values)
        heads = [head for head, head_task in self.layout.heads.items() if head_task == task]
        return name.replace(CLASSIFIER, heads[0], 1) if heads else name

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a weight of the backbone."""
        if name not in self.backbone:
            raise mismatch(self.left_over, [self.source_name(name, "")], [])
        return tuple(self.backbone[name].shape)

    def count(self, prefix: str) -> int:
        """Count the layers under `prefix`. It is one more than the highest number."""
        starts = [name[len(prefix) :] for name in self.backbone if name.startswith(prefix)]
        return 1 + max((int(start.split(".")[0]) for start in starts), default=-1)


def mismatch(left_over: list[str], missing: list[str], misshapen: list[str]) -> ValueError:
    """Return the error of a checkpoint whose weights are not exactly those of the model."""
    problems = (
        ("left over, with no place in the model", left_over),
        ("missing", missing),
        ("of a wrong shape", misshapen),
    )
    found = "; ".join(f"{problem}: {', '.join(dict.fromkeys(names))}" for problem, names in problems if names)
    return ValueError(f"the checkpoint does not fit. {found}")
