"""The evaluation of retrieval: every caption is scored with every image, and recall@k is counted."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate.utils import reduce
from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm

from ..figures import duration, figure
from ..flops import FlopCounter
from ..metrics.retrieval import recall_at_k
from ..models.encoders.heads import RetrievalHead
from .collator import Collator
from .task import EvaluationArguments

Inputs = dict[str, Tensor]


def evaluate_retrieval(
    args: EvaluationArguments, model: RetrievalHead, dataset: Dataset, collator: Collator
) -> dict[str, Any]:
    """Return recall@1, 5 and 10 in both directions, in percent ([`recall_at_k`]), and how many images and captions."""
    matches = [(image, caption) for image, captions in enumerate(dataset["captions"]) for caption in captions]
    owners, captions = zip(*matches, strict=True)
    scores = score_all(args, model, dataset, collator)
    return {**recall_at_k(scores, owners, captions=captions), "images": len(dataset), "captions": len(captions)}


@torch.inference_mode()
def score_all(args: EvaluationArguments, model: RetrievalHead, dataset: Dataset, collator: Collator) -> np.ndarray:
    """Return scores float32 (num_captions, num_images), the same on every process. Captions follow the images.

    Each process takes every n-th image, and scores it with `args.per_device_eval_batch_size` captions at a time. What
    depends on captions alone or on an image alone is computed once ([`RetrievalHead.encode_texts`]). The first process
    prints an estimate of the cost before the scoring.
    """
    model.eval()
    texts = encode_captions(args, model, tokenize_captions(dataset, collator))
    num_texts, num_images = len(next(iter(texts.values()))), len(dataset)
    single = replace(collator.for_benchmark(), rand_augment=False)

    def image_of(number: int) -> Inputs:
        image = {name: value for name, value in single([dataset[number]]).items() if name.startswith("pixel")}
        with args.autocast():
            return model.encode_images(on_device(args, image))

    image_numbers = range(args.process_index, num_images, args.world_size)
    scores = torch.zeros(num_texts, num_images, device=args.device)
    is_first = args.process_index == 0
    if is_first:
        print(cost_estimate(args, model, texts, image_of(0), num_texts * num_images))
    for number in tqdm(image_numbers, desc="Scoring images", disable=not is_first or args.disable_tqdm):
        image = image_of(number)
        for start in range(0, num_texts, args.per_device_eval_batch_size):
            block = slice(start, start + args.per_device_eval_batch_size)
            scores[block, number] = score_block(args, model, texts, image, block)
    return reduce(scores, "sum").cpu().numpy()  # each column is nonzero on one process only


def encode_captions(args: EvaluationArguments, model: RetrievalHead, texts: Inputs) -> Inputs:
    """Encode all captions on the device ([`RetrievalHead.encode_texts`])."""
    parts = []
    for start in range(0, len(texts["input_ids"]), args.per_device_eval_batch_size):
        block = {name: value[start : start + args.per_device_eval_batch_size] for name, value in texts.items()}
        with args.autocast():
            parts.append(model.encode_texts(on_device(args, block)))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def tokenize_captions(dataset: Dataset, collator: Collator) -> Inputs:
    """Tokenize all captions, image after image. The tensors are long (num_captions, max_text_length)."""
    captions = [caption for group in dataset["captions"] for caption in group]
    return collator.encoder.encode_texts(captions)


def cost_estimate(
    args: EvaluationArguments, model: RetrievalHead, texts: Inputs, image: Inputs, num_pairs: int
) -> str:
    """Estimate what scoring all captions with all images costs, from the FLOPs of a score and the time of a block."""
    with FlopCounter() as flops:
        score_block(args, model, texts, image, slice(0, 1))
    block = slice(0, args.per_device_eval_batch_size)
    for _ in range(2):  # the first is a warm-up
        start = time.perf_counter()
        size = len(score_block(args, model, texts, image, block).tolist())
        seconds = time.perf_counter() - start
    taken = seconds / size * num_pairs / args.world_size
    each, in_all = flops.count / 1e9, flops.count * num_pairs / 1e12
    return (
        f"Scoring {num_pairs:,} pairs: {figure(each)} GFLOPs each, {figure(in_all)} TFLOPs in all, "
        f"about {duration(taken)} on {args.world_size} process{'es' if args.world_size > 1 else ''}"
    )


def score_block(args: EvaluationArguments, model: RetrievalHead, texts: Inputs, image: Inputs, block: slice) -> Tensor:
    """Return scores float32 (K,) of one image with a block of K captions."""
    captions = {name: value[block] for name, value in texts.items()}
    number = len(next(iter(captions.values())))
    images = {name: value.expand(number, *value.shape[1:]) for name, value in image.items()}
    with args.autocast():
        return model.score(captions, images)


def on_device(args: EvaluationArguments, inputs: Inputs) -> Inputs:
    """Return inputs on the device of the model."""
    return {name: value.to(args.device) for name, value in inputs.items()}
