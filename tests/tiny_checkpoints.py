"""Tiny checkpoints with random weights in the layouts of original ViLT and METER and of PuMer's release.

The names and shapes are written out here, not derived from the tables that the converters use.
"""

import json
import sys
from types import ModuleType

import torch

WIDTH, HEADS, VOCAB, POSITIONS, LABELS = 16, 2, 40, 12, 7
VILT_PATCH, METER_PATCH, GRID = 8, 4, 4
TEXT_WIDTH, CLIP_WIDTH, LAYERS = 24, 20, 2
ROBERTA_POSITIONS = 14

HYPER_PARAMETERS = {"num_heads": HEADS, "hidden_size": WIDTH, "drop_rate": 0.1, "image_size": 32, "max_text_len": 12}


def linear(name, out_features, in_features):
    return {f"{name}.weight": (out_features, in_features), f"{name}.bias": (out_features,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def heads(names, pooled):
    """The heads of these names; `pooled` is the width of the pooled output."""
    shapes = {}
    for name in names:
        if name == "itm_score":
            shapes |= linear("itm_score.fc", 2, pooled)
        elif name == "mlm_score":
            shapes |= linear("mlm_score.transform.dense", WIDTH, WIDTH) | norm("mlm_score.transform.LayerNorm", WIDTH)
            shapes |= {"mlm_score.decoder.weight": (VOCAB, WIDTH), "mlm_score.bias": (VOCAB,)}
        elif name == "mpp_score":
            shapes |= linear("mpp_score.decoder", 256 * 3, WIDTH)
        elif name == "rank_output":
            shapes |= linear("rank_output", 1, pooled)
        else:
            labels = {"vqa_classifier": LABELS, "nlvr2_classifier": 2}.get(name, 3)
            images = 2 if name == "nlvr2_classifier" else 1
            shapes |= linear(f"{name}.0", 2 * WIDTH, images * pooled) | norm(f"{name}.1", 2 * WIDTH)
            shapes |= linear(f"{name}.3", labels, 2 * WIDTH)
    return shapes


def vilt_backbone(token_types=2):
    shapes = {
        "text_embeddings.position_ids": None,
        "text_embeddings.word_embeddings.weight": (VOCAB, WIDTH),
        "text_embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "text_embeddings.token_type_embeddings.weight": (2, WIDTH),
        **norm("text_embeddings.LayerNorm", WIDTH),
        "token_type_embeddings.weight": (token_types, WIDTH),
        "transformer.cls_token": (1, 1, WIDTH),
        "transformer.pos_embed": (1, GRID * GRID + 1, WIDTH),
        "transformer.patch_embed.proj.weight": (WIDTH, 3, VILT_PATCH, VILT_PATCH),
        "transformer.patch_embed.proj.bias": (WIDTH,),
    }
    for layer in range(LAYERS):
        block = f"transformer.blocks.{layer}"
        shapes |= norm(f"{block}.norm1", WIDTH) | norm(f"{block}.norm2", WIDTH)
        shapes |= linear(f"{block}.attn.qkv", 3 * WIDTH, WIDTH) | linear(f"{block}.attn.proj", WIDTH, WIDTH)
        shapes |= linear(f"{block}.mlp.fc1", 4 * WIDTH, WIDTH) | linear(f"{block}.mlp.fc2", WIDTH, 4 * WIDTH)
    return shapes | norm("transformer.norm", WIDTH) | linear("pooler.dense", WIDTH, WIDTH)


def clip_tower(name):
    shapes = {
        f"{name}.class_embedding": (CLIP_WIDTH,),
        f"{name}.positional_embedding": (GRID * GRID + 1, CLIP_WIDTH),
        f"{name}.conv1.weight": (CLIP_WIDTH, 3, METER_PATCH, METER_PATCH),
        **norm(f"{name}.ln_pre", CLIP_WIDTH),
    }
    for layer in range(LAYERS):
        block = f"{name}.transformer.resblocks.{layer}"
        shapes |= {
            f"{block}.attn.in_proj_weight": (3 * CLIP_WIDTH, CLIP_WIDTH),
            f"{block}.attn.in_proj_bias": (3 * CLIP_WIDTH,),
        }
        shapes |= linear(f"{block}.attn.out_proj", CLIP_WIDTH, CLIP_WIDTH)
        shapes |= norm(f"{block}.ln_1", CLIP_WIDTH) | norm(f"{block}.ln_2", CLIP_WIDTH)
        shapes |= linear(f"{block}.mlp.c_fc", 4 * CLIP_WIDTH, CLIP_WIDTH)
        shapes |= linear(f"{block}.mlp.c_proj", CLIP_WIDTH, 4 * CLIP_WIDTH)
    return shapes | norm(f"{name}.ln_post", CLIP_WIDTH)


def bert_attention(name, width):
    shapes = {}
    for part in ("query", "key", "value"):
        shapes |= linear(f"{name}.self.{part}", width, width)
    return shapes | linear(f"{name}.output.dense", width, width) | norm(f"{name}.output.LayerNorm", width)


def bert_feed_forward(name, width):
    shapes = linear(f"{name}.intermediate.dense", 4 * width, width) | linear(f"{name}.output.dense", width, 4 * width)
    return shapes | norm(f"{name}.output.LayerNorm", width)


def roberta_tower():
    name = "text_transformer"
    shapes = {
        f"{name}.embeddings.position_ids": None,
        f"{name}.embeddings.word_embeddings.weight": (VOCAB, TEXT_WIDTH),
        f"{name}.embeddings.position_embeddings.weight": (ROBERTA_POSITIONS, TEXT_WIDTH),
        f"{name}.embeddings.token_type_embeddings.weight": (1, TEXT_WIDTH),
        **norm(f"{name}.embeddings.LayerNorm", TEXT_WIDTH),
    }
    for layer in range(LAYERS):
        block = f"{name}.encoder.layer.{layer}"
        shapes |= bert_attention(f"{block}.attention", TEXT_WIDTH) | bert_feed_forward(block, TEXT_WIDTH)
    return shapes


def meter_backbone(vision, token_types=2):
    shapes = clip_tower(vision) | roberta_tower()
    shapes["token_type_embeddings.weight"] = (token_types, WIDTH)
    for side, width in (("text", TEXT_WIDTH), ("image", CLIP_WIDTH)):
        shapes |= linear(f"cross_modal_{side}_transform", WIDTH, width)
        shapes |= linear(f"cross_modal_{side}_pooler.dense", WIDTH, WIDTH)
        for pair in range(LAYERS):
            layer = f"cross_modal_{side}_layers.{pair}"
            shapes |= bert_attention(f"{layer}.attention", WIDTH) | bert_attention(f"{layer}.crossattention", WIDTH)
            shapes |= bert_feed_forward(layer, WIDTH)
    return shapes


def random_weights(shapes):
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.arange(POSITIONS)[None] if shape is None else 0.3 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


def original_vilt(*head_names):
    token_types = 3 if "nlvr2_classifier" in head_names else 2
    return random_weights(vilt_backbone(token_types) | heads(head_names, WIDTH))


def original_meter(*head_names):
    token_types = 3 if "nlvr2_classifier" in head_names else 2
    leftovers = {
        "vit_model.positional_embedding": (77, CLIP_WIDTH),
        "vit_model.token_embedding.weight": (50, CLIP_WIDTH),
        **norm("vit_model.ln_final", CLIP_WIDTH),
        **linear("text_transformer.pooler.dense", TEXT_WIDTH, TEXT_WIDTH),
    }
    backbone = meter_backbone("vit_model.visual", token_types)
    return random_weights(backbone | leftovers | heads(head_names, 2 * WIDTH))


def released(family, *head_names):
    token_types = 3 if "nlvr2_classifier" in head_names else 2
    backbone = vilt_backbone(token_types) if family == "vilt" else meter_backbone("vit_model", token_types)
    pooled = WIDTH if family == "vilt" else 2 * WIDTH
    shapes = {f"{family}.{name}": shape for name, shape in backbone.items()} | heads(head_names, pooled)
    return random_weights(shapes)


def save_released(folder, family, head_names, **config):
    """A released folder; returns its weights."""
    weights = released(family, *head_names)
    flat = {
        "model_type": family,
        "tokenizer": "bert-base-uncased" if family == "vilt" else "roberta-base",
        "num_heads": HEADS,
        "hidden_size": WIDTH,
        "num_layers": LAYERS,
        "drop_rate": 0.1,
        "max_text_len": POSITIONS,
        "vocab_size": VOCAB,
        "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
        "prune_layers": None,
        "sim_method": "mean_head",
        "merge_style": "tome",
        "merge_r": 0,
        "prune_r": 0,
        "merge_text": 0,
        "reduce_layers": None,
        **config,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(flat))
    torch.save(weights, folder / "pytorch_model.bin")
    return weights


def save_lightning(path, weights, config=HYPER_PARAMETERS):
    """A file as Lightning writes it, which names classes of Lightning. It is not installed: stand-ins are pickled."""
    names = ["pytorch_lightning", "pytorch_lightning.callbacks", "pytorch_lightning.utilities"]
    files = {
        "pytorch_lightning.callbacks.model_checkpoint": ("ModelCheckpoint", object),
        "pytorch_lightning.utilities.parsing": ("AttributeDict", dict),
    }
    modules = {name: ModuleType(name) for name in [*names, *files]}
    classes = {}
    for module, (name, base) in files.items():
        classes[name] = type(name, (base,), {"__module__": module})
        setattr(modules[module], name, classes[name])
    sys.modules.update(modules)
    try:
        content = {
            "epoch": 9,
            "global_step": 1000,
            "pytorch-lightning_version": "1.3.2",
            "state_dict": weights,
            "callbacks": {
                classes["ModelCheckpoint"]: {"monitor": "val/the_metric", "best_model_score": torch.ones(())}
            },
            "optimizer_states": [
                {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4}]}
            ],
            "lr_schedulers": [{"last_epoch": 3, "base_lrs": [1e-4], "lr_lambdas": [None]}],
        }
        if config is not None:
            content |= {"hparams_name": "config", "hyper_parameters": classes["AttributeDict"](config=dict(config))}
        torch.save(content, path)
    finally:
        for name in modules:
            del sys.modules[name]
    return path
