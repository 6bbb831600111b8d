"""Tiny models from scratch with the processor for digit scenes, as the recipes build them; untrained."""

import json
from pathlib import Path

import torch
from tiny import PUMER, meter_fields, vilt_fields

from pumer_hf.data.nlvr2 import NLVR2
from pumer_hf.data.retrieval import RETRIEVAL
from pumer_hf.data.scenes.digits import COLOURS, DIGITS
from pumer_hf.data.snli_ve import SNLI_VE
from pumer_hf.data.vqa import VQA
from pumer_hf.recipes.build import build_teacher
from pumer_hf.recipes.recipe import ModelArguments

TASKS = {"vqa": VQA, "snli_ve": SNLI_VE, "nlvr2": NLVR2, "retrieval": RETRIEVAL}
LABELS = {
    "vqa": ["0", "1", "2", "red", "green", "yes", "no"],
    "snli_ve": ["entailment", "neutral", "contradiction"],
    "nlvr2": ["False", "True"],
    "retrieval": [],
}
REDUCTION = {**PUMER, "layers": [0, 2], "prune_ratio": [0.1, 0.3], "saliency": "mean_head"}
TEXTS = [f"what digit is {' '.join([*DIGITS, *COLOURS])}?", "is there a red digit?"]
CONFIGS = {
    "vilt": vilt_fields(max_position_embeddings=40, initializer_range=0.4),
    "meter": meter_fields({"max_position_embeddings": 42}, {"initializer_factor": 2.0}, initializer_range=0.4),
}


def tiny(backbone, task="vqa", reduction=REDUCTION, seed=0, **config):
    """A model in eval mode and its processor."""
    torch.manual_seed(seed)
    args = ModelArguments(backbone=backbone, config={**CONFIGS[backbone], **config})
    model, processor = build_teacher(args, LABELS[task], TEXTS, 40, TASKS[task])
    # As in a new model: a method that must have learned before, such as lookahead, is random here.
    model.config.reduction = reduction
    model.base_model.token_reduction.build()
    return model.eval(), processor


def without_record(folder):
    """Make the processor in a folder one that does not say how inputs are made, as older versions saved it; returns
    the folder.
    """
    path = Path(folder) / "processor_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    del config["image_processor"]["encoding"]
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder


def save_tiny(folder, *args, **kwargs):
    """Save a tiny model and its processor; returns the folder as a string."""
    for part in tiny(*args, **kwargs):
        part.save_pretrained(folder)
    return str(folder)
