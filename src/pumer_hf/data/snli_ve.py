"""SNLI-VE (https://arxiv.org/abs/1901.06706): does an image entail a hypothesis, contradict it, or leave it open?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image as PILImage

from ..images import open_image
from .arguments import DataArguments
from .classes import check_labels, class_baselines, class_metrics
from .collator import ClassCollator
from .columns import class_name, image_of, text_of
from .files import image_in, json_field, json_text, read_objects, to_dataset
from .hub import log_unlabelled
from .scenes.statements import ENTAILMENT, SNLI_VE_FEATURES, hypothesis_scenes
from .task import LOADED_EXAMPLE, Task, TaskData, load_splits

FEATURES = SNLI_VE_FEATURES.copy()
del FEATURES["kind"]
NO_CONSENSUS = "-"


@dataclass
class SnliVeDataArguments(DataArguments):
    """The `data` block of an SNLI-VE recipe. Files are SNLI-VE's .jsonl; `image_dir` has the images of Flickr30k.

    Columns of a Hub dataset: `image`, `hypothesis` and `label` (names, or a `ClassLabel`).
    """


def load_snli_ve(args: SnliVeDataArguments, labels: Sequence[str] | None = None) -> TaskData:
    """Load the three splits, with the columns `image`, `hypothesis` and `label`."""
    scene = {"grid_size": args.grid_size, "num_digits": args.num_digits, "seed": args.scene_seed}
    unlabelled: dict[str, list[str]] = {split: [] for split in args.needed_splits}
    data = load_splits(
        args,
        read=lambda files, image_dir, split, skipped: read_snli_ve(
            files, image_dir, split, skipped, unlabelled[split]
        ),
        scenes=lambda split, number: hypothesis_scenes(split, number, **scene),
        columns={"label": entailment, "hypothesis": text_of, "image": image_of},
    )
    in_files = {split: len(origins) for split, origins in unlabelled.items() if args.has_files}
    return replace(data, labels=check_labels(labels, ENTAILMENT), unlabelled={**data.unlabelled, **in_files})


def read_snli_ve(
    files: list[str],
    image_dir: str | None,
    split: str,
    skipped: list[str] | None = None,
    unlabelled: list[str] | None = None,
) -> Dataset:
    """Read one of SNLI-VE's files (`snli_ve_dev.jsonl`).

    The hypothesis is `sentence2`, and the label is `gold_label`. Rows without consensus (`-`) are left out. The
    beginning of `pairID` (`4705552913.jpg#2r1n`) names the image, in `image_dir` (default: the folder of the file).
    Other data may name the image in a field `image`. `skipped`: see [`to_dataset`]. `unlabelled`: a list; the origins
    of rows without consensus are added to it.
    """
    folder = Path(image_dir) if image_dir else Path(files[0]).parent
    without_label: list[str] = [] if unlabelled is None else unlabelled
    return to_dataset(
        _rows(files, folder, without_label),
        FEATURES,
        f"{files[0]}: the file holds no hypothesis with a label",
        skipped,
    )


def entailment(value: Any, feature: Any) -> str | None:
    """Return the label in a column of a Hub dataset; None if there is none."""
    name = class_name(value, feature)
    if name is None:
        return None
    if name.strip().lower() not in ENTAILMENT:
        raise ValueError(f"must hold one of {list(ENTAILMENT)}, got {name!r}")
    return name.strip().lower()


def _rows(files: list[str], folder: Path, unlabelled: list[str]) -> Iterator[dict[str, Any]]:
    total = 0
    for row, origin in read_objects(files):
        total += 1
        label = json_field(row, "gold_label", str, origin)
        if label == NO_CONSENSUS:
            unlabelled.append(origin)
            continue
        if label not in ENTAILMENT:
            raise ValueError(f"{origin}: the field 'gold_label' must be one of {list(ENTAILMENT)}, got {label!r}")
        if "image" in row:
            name = json_field(row, "image", str, origin)
        else:
            name = json_field(row, "pairID", str, origin).split("#")[0]
        yield {
            "image": image_in(folder, name),
            "hypothesis": json_text(row, "sentence2", origin),
            "label": label,
            "origin": origin,
        }
    if unlabelled:
        log_unlabelled(len(unlabelled), total, unlabelled[0])


class SnliVeCollator(ClassCollator):
    """The collator of hypotheses about images."""

    def texts(self, row: dict[str, Any]) -> str:
        return row["hypothesis"]


def page_examples(num_scenes: int, grid_size: int, setting: str) -> list[tuple[PILImage.Image, str]]:
    """Make digit scenes of the test split, each with a hypothesis.

    Raises:
        ValueError: `setting` is another one than `"plain"`. Hypotheses are about plain scenes.
    """
    if setting != "plain":
        raise ValueError(f"setting={setting!r}: hypotheses are about plain scenes")
    rows = hypothesis_scenes("test", num_scenes, grid_size=grid_size)
    rows = rows.select(range(0, len(rows), 3))
    return [(open_image(row["image"], row["origin"]), row["hypothesis"]) for row in rows]


SNLI_VE = Task(
    name="snli_ve",
    title="visual entailment",
    arguments=SnliVeDataArguments,
    load=load_snli_ve,
    collator=SnliVeCollator.of,
    texts=lambda dataset: dataset["hypothesis"][:],
    paper_folder="snli_ve",
    scenes_folder="digit_scenes_snli_ve",
    head="snli_ve",
    num_labels=3,
    activation="softmax",
    metrics=class_metrics,
    baselines=class_baselines("hypothesis"),
    hub_type="visual-entailment",
    card_example=LOADED_EXAMPLE
    + 'logits = model(**encode_example(model, processor, Image.open("picture.png"), "a dog is running")).logits\n'
    + "print(model.config.id2label[logits.argmax().item()])",
    text_label="Hypothesis",
    page_examples=page_examples,
)
