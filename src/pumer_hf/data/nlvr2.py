"""NLVR2 (https://arxiv.org/abs/1811.00491): is a sentence true of two images?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import EvalPrediction

from ..metrics.classification import accuracy_score, consistency_score
from ..results import PERCENT
from .arguments import DataArguments
from .classes import check_labels, class_baselines
from .collator import ClassCollator
from .columns import image_of, text_of, truth
from .files import image_in, json_field, json_text, read_objects, to_dataset
from .scenes.statements import NLVR2_FEATURES, TRUTH, statement_scenes
from .task import LOADED_EXAMPLE, Metrics, Task, TaskData, check_rows, load_splits

FEATURES = NLVR2_FEATURES.copy()
del FEATURES["kind"]


@dataclass
class Nlvr2DataArguments(DataArguments):
    """The `data` block of an NLVR2 recipe. Files are NLVR2's .json, with one object per line.

    Columns of a Hub dataset: `left`, `right`, `sentence`, `label` (a name or a number) and `identifier`
    (`dev-850-0-0`). The parts of an identifier without the third one identify the sentence.
    """


def load_nlvr2(args: Nlvr2DataArguments, labels: Sequence[str] | None = None) -> TaskData:
    """Load the three splits, with the columns `left`, `right`, `sentence`, `label` and `identifier`."""
    scene = {"grid_size": args.grid_size, "num_digits": args.num_digits, "seed": args.scene_seed}
    data = load_splits(
        args,
        read=read_nlvr2,
        scenes=lambda split, number: statement_scenes(split, number, **scene),
        columns={
            "label": truth,
            "sentence": text_of,
            "identifier": identifier_of,
            "left": image_of,
            "right": image_of,
        },
    )
    return replace(data, labels=check_labels(labels, TRUTH))


def read_nlvr2(files: list[str], image_dir: str | None, split: str, skipped: list[str] | None = None) -> Dataset:
    """Read one of NLVR2's files (`dev.json`).

    The identifier of a row gives the names of its images: `dev-850-0-0` -> `dev-850-0-img0.png` and
    `dev-850-0-img1.png`. They are in `image_dir` (default: the folder of the file), in its subfolder `dev`, or, for
    training, in `train/DIRECTORY`. Other data may name both images in a field `images`. `skipped`: see
    [`to_dataset`].
    """
    folder = Path(image_dir) if image_dir else Path(files[0]).parent
    return to_dataset(_rows(files, folder), FEATURES, f"{files[0]}: the file holds no sentence", skipped)


def _rows(files: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    for row, origin in read_objects(files):
        identifier = json_field(row, "identifier", str, origin)
        if not is_identifier(identifier):
            raise ValueError(f"{origin}: the field 'identifier' must be like dev-850-0-0, got {identifier!r}")
        label = json_field(row, "label", str, origin).capitalize()
        if label not in TRUTH:
            raise ValueError(f"{origin}: the field 'label' must be True or False, got {row['label']!r}")
        left, right = _image_names(row, identifier, origin)
        yield {
            "left": image_in(folder, *left),
            "right": image_in(folder, *right),
            "sentence": json_text(row, "sentence", origin),
            "label": label,
            "identifier": identifier,
            "origin": origin,
        }


def _image_names(row: dict[str, Any], identifier: str, origin: str) -> list[list[str]]:
    """The possible names of the left image, and those of the right image."""
    if "images" in row:
        names = json_field(row, "images", list, origin)
        if len(names) != 2:
            raise ValueError(f"{origin}: the field 'images' must name two images, got {names!r}")
        return [[str(name)] for name in names]
    stem, _, _ = identifier.rpartition("-")
    folders = ["", f"{identifier.split('-')[0]}/"]
    if "directory" in row:
        folders = [f"{folder}{row['directory']}/" for folder in reversed(folders)] + folders
    return [[f"{folder}{stem}-img{index}.png" for folder in folders] for index in range(2)]


def is_identifier(value: Any) -> bool:
    """Whether a value has the four parts of an NLVR2 identifier (`dev-850-0-0`)."""
    return isinstance(value, str) and value.count("-") == 3


def identifier_of(value: Any, feature: Any) -> str:
    """Return the identifier in a column of a Hub dataset."""
    if not is_identifier(value):
        raise ValueError(f"must hold identifiers like dev-850-0-0, which tell sentences apart, got {value!r}")
    return value


def sentence_of(identifier: str) -> str:
    """Return what identifies a sentence in the official evaluation: the identifier without its third part."""
    parts = identifier.split("-")
    return "-".join(parts[:2] + parts[3:])


class Nlvr2Collator(ClassCollator):
    """The collator of sentences about two images; `pixel_values` are float (B, 2, 3, h, w)."""

    def texts(self, row: dict[str, Any]) -> str:
        return row["sentence"]

    def images(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [row["left"], row["right"]]


def nlvr2_metrics(dataset: Dataset, labels: Sequence[str]) -> Metrics:
    """Return the function that computes `accuracy` and `consistency`, in percent.

    Consistency counts the sentences that are judged correctly in all their examples.
    """
    sentences = [sentence_of(identifier) for identifier in dataset["identifier"]]

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits, targets = check_rows(prediction, len(sentences))
        classes = logits.argmax(-1)
        return {
            "accuracy": accuracy_score(classes, targets),
            "consistency": consistency_score(classes, targets, sentences),
        }

    return compute


NLVR2 = Task(
    name="nlvr2",
    title="judging statements about two images",
    arguments=Nlvr2DataArguments,
    load=load_nlvr2,
    collator=Nlvr2Collator.of,
    texts=lambda dataset: dataset["sentence"][:],
    metric_types={"accuracy": PERCENT, "consistency": PERCENT},
    paper_folder="nlvr2",
    scenes_folder="digit_scenes_nlvr2",
    head="nlvr2",
    num_labels=2,
    model_config={"num_images": 2, "modality_type_vocab_size": 3},
    activation="softmax",
    metrics=nlvr2_metrics,
    baselines=class_baselines("sentence"),
    hub_type="visual-reasoning",
    card_example=LOADED_EXAMPLE
    + 'images = [Image.open("left.png"), Image.open("right.png")]\n'
    + 'logits = model(**encode_example(model, processor, images, "both pictures show a dog")).logits\n'
    + "print(model.config.id2label[logits.argmax().item()])",
)
