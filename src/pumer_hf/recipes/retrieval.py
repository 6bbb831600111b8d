"""Retrieval, evaluated: every caption scored with every image, and recall@k."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate.utils import reduce
from datasets import Dataset
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..bench.flops import FlopCounter
from ..data.retrieval import RetrievalCollator
from ..figures import duration, figure
from ..metrics.retrieval import recall_at_k
from ..models.encoders.meter import PuMerMeterForImageAndTextRetrieval
from .recipe import RecipeTrainingArguments


def evaluate_retrieval(
    args: RecipeTrainingArguments, model: nn.Module, dataset: Dataset, collator: RetrievalCollator
) -> dict[str, Any]:
    """Recall@1, 5 and 10 both ways, in percent ([`recall_at_k`]), and how many images and captions there were."""
    pairs = [(image, caption) for image, captions in enumerate(dataset["captions"]) for caption in captions]
    owners, captions = zip(*pairs, strict=True)
    scores = score_all_pairs(args, model, dataset, collator)
    return {**recall_at_k(scores, owners, captions=captions), "images": len(dataset), "captions": len(captions)}


@torch.inference_mode()
def score_all_pairs(
    args: RecipeTrainingArguments, model: nn.Module, dataset: Dataset, collator: RetrievalCollator
) -> np.ndarray:
    """Scores float32 (num_captions, num_images), the same on every process; the captions are in order of the images.

    Each process takes every n-th image, and scores it with `args.per_device_eval_batch_size` captions at a time. METER
    encodes each caption and each image once. Before that, the first process prints what it will cost.
    """
    texts = tokenize_captions(dataset, collator)
    num_texts, num_images = len(texts["input_ids"]), len(dataset)
    pairs = replace(collator, num_negatives=0, training=False, rand_augment=False)
    model.eval()
    if isinstance(model, PuMerMeterForImageAndTextRetrieval):
        texts = encode_captions(args, model, texts)

    def image_of(number: int) -> dict[str, Tensor]:
        image = {name: value for name, value in pairs([dataset[number]]).items() if name.startswith("pixel")}
        image = {name: value.to(args.device) for name, value in image.items()}
        if not isinstance(model, PuMerMeterForImageAndTextRetrieval):
            return image
        with args.autocast():
            embeds, source = model.base_model.encode_image(image["pixel_values"])
        return {"image_embeds": embeds, "image_source": source}

    own_images = range(args.process_index, num_images, args.world_size)
    scores = torch.zeros(num_texts, num_images, device=args.device)
    is_first = args.process_index == 0
    if is_first:
        print(cost_estimate(args, model, texts, image_of(0), num_texts * num_images))
    for number in tqdm(own_images, desc="Scoring images", disable=not is_first or args.disable_tqdm):
        image = image_of(number)
        for start in range(0, num_texts, args.per_device_eval_batch_size):
            block = slice(start, start + args.per_device_eval_batch_size)
            scores[block, number] = _forward(args, model, texts, image, block)
    return reduce(scores, "sum").cpu().numpy()  # a column is nonzero on one process alone


def encode_captions(
    args: RecipeTrainingArguments, model: PuMerMeterForImageAndTextRetrieval, texts: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Captions after METER's text tower: `text_embeds` float (num_captions, Lt, D) and `attention_mask`."""
    parts = []
    for start in range(0, len(texts["input_ids"]), args.per_device_eval_batch_size):
        block = {name: value[start : start + args.per_device_eval_batch_size] for name, value in texts.items()}
        with args.autocast():
            parts.append(model.base_model.encode_text(**{name: v.to(args.device) for name, v in block.items()}))
    return {"text_embeds": torch.cat(parts), "attention_mask": texts["attention_mask"]}


def tokenize_captions(dataset: Dataset, collator: RetrievalCollator) -> dict[str, Tensor]:
    """All captions, image after image: what the tokenizer gives, long (num_captions, max_text_length)."""
    captions = [caption for own in dataset["captions"] for caption in own]
    return collator.encoder.encode_texts(captions)


def cost_estimate(
    args: RecipeTrainingArguments, model: nn.Module, texts: dict[str, Tensor], image: dict[str, Tensor], num_pairs: int
) -> str:
    """What scoring all pairs will take, from the FLOPs of one pair and the time of one block."""
    with FlopCounter() as flops:
        _forward(args, model, texts, image, slice(0, 1))
    block = slice(0, args.per_device_eval_batch_size)
    for _ in range(2):  # the first is a warm-up
        start = time.perf_counter()
        size = len(_forward(args, model, texts, image, block).tolist())
        seconds = time.perf_counter() - start
    taken = seconds / size * num_pairs / args.world_size
    each, in_all = flops.count / 1e9, flops.count * num_pairs / 1e12
    return (
        f"Scoring {num_pairs:,} pairs: {figure(each)} GFLOPs each, {figure(in_all)} TFLOPs in all, "
        f"about {duration(taken)} on {args.world_size} process{'es' if args.world_size > 1 else ''}"
    )


def _forward(
    args: RecipeTrainingArguments, model: nn.Module, texts: dict[str, Tensor], image: dict[str, Tensor], block: slice
) -> Tensor:
    """Scores float32 (K,) of one image with a block of K captions."""
    captions = {name: value[block].to(args.device) for name, value in texts.items()}
    with args.autocast():
        if isinstance(model, PuMerMeterForImageAndTextRetrieval):
            number = len(captions["text_embeds"])
            images = {name: value.expand(number, *value.shape[1:]) for name, value in image.items()}
            return model.score_encoded(**captions, **images)
        candidates = {name: value.unsqueeze(0) for name, value in captions.items()}
        return model(**candidates, **image).logits[0]
