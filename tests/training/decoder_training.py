"""Tiny decoders, their rows and a collator, for the tests of `DistillationTrainer`."""

import pytest
import torch
from models.decoders.tiny import IMAGE, ONE, TWO, tiny_inputs, tiny_model

IGNORED = -100
PUMER = {"method": "pumer", "site": "inputs", "keep_ratio": 0.3}
LAYERS = {
    "method": "pumer",
    "layers": [0],
    "prune_ratio": 0.4,
    "image_merge_ratio": 0.3,
    "text_merge_ratio": 0.0,
}
SCHEDULES = {"inputs": PUMER, "layers": LAYERS, "both": [{**PUMER, "keep_ratio": 0.6}, LAYERS]}
ROWS = [
    {"prompt": [5, 6, ONE, 7, 8], "answer": [21, 99]},
    {"prompt": [8, ONE, 9, 9, TWO, 3], "answer": [22, 23, 24, 99]},
    {"prompt": [5, ONE, 30, 31, 32], "answer": [25, 99]},
    {"prompt": [6, 5, ONE, 40], "answer": [26, 27, 99]},
    {"prompt": [7, ONE, 41, 42], "answer": [99]},
    {"prompt": [9, ONE, 43, 44, 45, 46], "answer": [28, 29, 20, 19, 99]},
    {"prompt": [9, ONE, 47], "answer": [18, 99]},
]
"""Rows whose answers have from one to five tokens. Some prompts have two images."""


class Collator:
    """Makes the inputs of a family from rows, padded on a side, with labels on the answers."""

    def __init__(self, name, pad_left=False):
        self.name, self.pad_left, self.model = name, pad_left, tiny_model(name)

    def __call__(self, rows):
        prompts = [[*row["prompt"], *row["answer"]] for row in rows]
        inputs = tiny_inputs(self.model, self.name, prompts, pad_left=self.pad_left)
        labels = torch.full_like(inputs["input_ids"], IGNORED)
        for row, (mask, item) in enumerate(zip(inputs["attention_mask"].bool(), rows, strict=True)):
            columns = mask.nonzero().squeeze(1)[-len(item["answer"]) :]
            labels[row, columns] = torch.tensor(item["answer"])
        if self.name == "paligemma":
            inputs["token_type_ids"] = (labels != IGNORED).long()
        return {**inputs, "labels": labels}


def student(name="llava", reduction=PUMER, seed=1, **kwargs):
    return tiny_model(name, ours=True, reduction=reduction, seed=seed, **kwargs)


def answers_of(logits, labels, keep):
    """The logits that predict the answers, and the answers, row by row.

    Args:
        logits: float (B, L', V), of prompts that are padded on the right.
        labels: long (B, L), of the whole prompts.
        keep: bool (B, L), the columns of which there are logits.
    """
    found, wanted = [], []
    for row, (label, stays) in enumerate(zip(labels, keep, strict=True)):
        for place, column in enumerate(stays.nonzero().squeeze(1).tolist()):
            if label[column] != IGNORED:
                found.append(logits[row, place - 1])
                wanted.append(label[column])
    return torch.stack(found), torch.stack(wanted)


def kept_columns(batch, traces):
    """The columns of which a student has logits, bool (B, L): not those that it cut before the decoder."""
    cuts = [trace for trace in traces if trace.layer is None]
    keep = batch["attention_mask"].bool() & ((batch["input_ids"] != IMAGE) | (not cuts))
    for trace in cuts:
        keep[trace.row, trace.kept] = True
    return keep


def adapted(name="llava", reduction=PUMER):
    peft = pytest.importorskip("peft", reason="adapters need peft: pip install -e '.[lora]'")
    targets = r".*(language_model|text_model).*\.(q_proj|v_proj)"
    config = peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    torch.manual_seed(4)
    return peft.get_peft_model(tiny_model(name, ours=True, reduction=reduction), config)
