"""Reads VQA-HAT (https://arxiv.org/abs/1606.03556) from its files: where people look to answer VQA v1's questions."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from ..data.files import read_vqa_answers, read_vqa_questions
from ..images import open_image

NAME = re.compile(r"(\d+)_([1-9]\d*)")


def read_vqa_hat(
    maps: str, questions: str, image_dir: str, annotations: str | None = None, limit: int | None = None
) -> Dataset:
    """Read the questions that have attention maps.

    Args:
        maps: the folder of PNG files `<question_id>_<annotator>.png`. Annotators are counted from 1. The validation
            split has three annotators, the training split has one.
        questions: the official file with the questions of the split.
        image_dir: the folder of the COCO images.
        annotations: the official file with the answers. It is needed to measure the accuracy.
        limit: read only so many questions, the first of the file.

    Returns:
        A dataset with the columns `image` (path), `question`, `question_id`, `origin`, `maps` (a path per annotator),
        and `answers` if `annotations` is given.

    Raises:
        FileNotFoundError: a file, a folder, an image or the map of an annotator is missing.
        ValueError: a map has another name, or no question has a map.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: must be at least 1")
    found = find_maps(maps)
    rows = read_vqa_questions(questions, image_dir, found)
    rows = rows.select(range(min(limit or len(rows), len(rows))))
    ids = rows["question_id"][:]
    rows = rows.add_column("maps", [[str(path) for path in found[number]] for number in ids])
    if annotations is not None:
        answers = read_vqa_answers(annotations)
        missing = next((number for number in ids if number not in answers), None)
        if missing is not None:
            raise ValueError(f"{annotations}: has no annotation for question_id {missing}")
        rows = rows.add_column("answers", [answers[number] for number in ids])
    return rows


def find_maps(folder: str) -> Mapping[int, list[Path]]:
    """Return the maps in a folder by question_id, in order of the annotators. [`read_vqa_hat`] has the errors."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder of attention maps")
    maps: dict[int, dict[int, Path]] = {}
    for path in sorted(Path(folder).glob("[!.]*.png")):
        if path.is_dir():
            continue
        name = NAME.fullmatch(path.stem)
        if name is None:
            raise ValueError(f"{path}: the name of a map must be <question_id>_<annotator>.png, annotators from 1")
        maps.setdefault(int(name[1]), {})[int(name[2])] = path
    if not maps:
        raise FileNotFoundError(f"{folder}: there is no map <question_id>_<annotator>.png in it")
    annotators = range(1, 1 + max(max(of_question) for of_question in maps.values()))
    for number, of_question in maps.items():
        for annotator in annotators:
            if annotator not in of_question:
                missing = Path(folder) / f"{number}_{annotator}.png"
                raise FileNotFoundError(
                    f"{missing}: there is no such map, but others are by {annotators[-1]} annotators"
                )
    return {number: [of_question[annotator] for annotator in annotators] for number, of_question in maps.items()}


def read_map(path: str) -> Tensor:
    """Return the grey values of an attention map, uint8 (h, w).

    Raises:
        ValueError: the file is not an image; the message names the file.
    """
    picture = open_image({"path": path, "bytes": None}, "attention map")
    return torch.from_numpy(np.array(picture.convert("L")))
