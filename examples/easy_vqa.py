"""Bring your own data: easy-VQA (https://github.com/vzhou842/easy-VQA) as the JSONL files that the recipes read.

    git clone https://github.com/vzhou842/easy-VQA
    python examples/easy_vqa.py easy-VQA/data data/easy-vqa
    accelerate launch recipes/train_vqa.py recipes/vilt/easy_vqa/pumer.yaml   # a small model from scratch
    accelerate launch recipes/train_vqa.py --checkpoint dandelin/vilt-b32-mlm \\
        --train_file data/easy-vqa/train.jsonl --validation_file data/easy-vqa/validation.jsonl   # a pretrained one

Each line of a file is one question: `{"image": "images/train/0.png", "question": "what is the blue shape?", "answer":
"rectangle"}`. Image paths are relative to the file. Data of your own needs nothing else; few questions need the
pretrained model.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any


def main() -> None:
    """Convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the data folder of easy-VQA, with train/ and test/")
    parser.add_argument("destination", type=Path, help="folder to write")
    parser.add_argument("--validation_share", type=float, default=0.1, help="part of the training images to set aside")
    args = parser.parse_args()

    train, test = (read_rows(args.source, split) for split in ("train", "test"))
    # Split by image, so that no validation image is seen in training. The images come in random order.
    first_held_out = round((1 - args.validation_share) * (1 + max(number for number, _ in train)))
    write_rows(args.destination / "train.jsonl", [row for number, row in train if number < first_held_out])
    write_rows(args.destination / "validation.jsonl", [row for number, row in train if number >= first_held_out])
    write_rows(args.destination / "test.jsonl", [row for _, row in test])
    for split in ("train", "test"):
        shutil.copytree(args.source / split / "images", args.destination / "images" / split, dirs_exist_ok=True)


def read_rows(source: Path, split: str) -> list[tuple[int, dict[str, Any]]]:
    """The questions of a split, each with the number of its image."""
    questions = json.loads((source / split / "questions.json").read_text(encoding="utf-8"))
    return [
        (number, {"image": f"images/{split}/{number}.png", "question": question, "answer": answer})
        for question, answer, number in questions
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """One JSON object per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{path}: {len(rows)} questions")


if __name__ == "__main__":
    main()
