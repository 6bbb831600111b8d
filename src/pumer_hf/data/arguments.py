"""The `data` block of a recipe: the fields that all tasks share."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from transformers import ProcessorMixin

from ..encoding import TEXT_LENGTH
from ..inputs import Encoder
from ..reading import parse_json

SPLITS = ("train", "validation", "test")
OWN_DATA = ("dataset", "train_file", "validation_file", "test_file")
"""The fields that say where the user's own data are."""
SCENES = ("train_scenes", "eval_scenes", "grid_size", "num_digits", "scene_seed")
"""The fields that say which digit scenes are made if the user brings no data."""


@dataclass
class DataArguments:
    """Where the data come from: a Hub dataset (`dataset`), files (`train_file`), or, by default, digit scenes."""

    _argument_group_name: ClassVar[str] = "data"
    only: ClassVar[str | None] = None
    """The only split to load, `"validation"` or `"test"` ([`only_split`]). None: load all three."""

    dataset: str | None = field(
        default=None,
        metadata={"help": "The id of a Hub dataset, or a local folder with parquet files or images, zipped or not."},
    )
    dataset_config: str | None = field(
        default=None, metadata={"help": "Configuration of the dataset, if it has several."}
    )
    dataset_revision: str | None = field(
        default=None,
        metadata={"help": "Revision of the dataset; refs/convert/parquet if it has a loading script."},
    )
    columns: dict | str | None = field(
        default=None,
        metadata={"help": "JSON, or a JSON file: our name of a column -> the dataset's name, where they differ."},
    )
    split_column: str | None = field(
        default=None,
        metadata={"help": "Column that says which split a row is in, if the dataset has no splits."},
    )
    train_split: str = field(default="train", metadata={"help": "Split of the dataset to train on."})
    validation_split: str = field(default="validation", metadata={"help": "Split to validate on."})
    test_split: str | None = field(
        default=None, metadata={"help": "Split for the final evaluation. Default: the validation split."}
    )
    streaming: bool = field(
        default=False, metadata={"help": "Read the training split from the Hub during training; needs a checkpoint."}
    )
    train_file: list[str] | None = field(
        default=None, metadata={"help": "Training data: official files, or one .jsonl file."}
    )
    validation_file: list[str] | None = field(default=None, metadata={"help": "The same for validation."})
    test_file: list[str] | None = field(
        default=None, metadata={"help": "The same for the final evaluation. Default: the validation data."}
    )
    image_dir: str | None = field(
        default=None, metadata={"help": "Folder of the images, for files and for datasets that hold paths of images."}
    )
    missing_images: Literal["error", "skip"] = field(
        default="error",
        metadata={
            "help": "What to do with a row of a file if its image is missing: stop, or leave the row out of training "
            "and evaluation. results.json counts such rows."
        },
    )
    max_text_length: int = field(default=TEXT_LENGTH, metadata={"help": "Tokens to which each text is padded or cut."})
    keep_aspect_ratio: bool = field(
        default=False,
        metadata={"help": "Keep the shape of the images (not for METER). Default: squares, as in the paper."},
    )
    rand_augment: bool = field(
        default=False,
        metadata={"help": "Apply RandAugment to the training images: 2 operations of magnitude 9."},
    )
    train_scenes: int = field(default=15_000, metadata={"help": "Number of digit scenes to train on."})
    eval_scenes: int = field(default=500, metadata={"help": "Number of digit scenes to validate on, and to test on."})
    grid_size: int = field(default=6, metadata={"help": "Cells along each side of a digit scene."})
    num_digits: int = field(default=3, metadata={"help": "Number of digits in a scene, 2 to 6."})
    scene_seed: int = field(default=0, metadata={"help": "Seed of the digit scenes."})

    def __post_init__(self) -> None:
        self._check_files()
        self._check_dataset()
        if self.max_text_length < 3:
            raise ValueError(f"data.max_text_length={self.max_text_length}: must be at least 3")

    def _check_files(self) -> None:
        for name in ("train_file", "validation_file", "test_file"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, list) and value):
                raise ValueError(f"data.{name}={value!r}: give a list of one or two files")
        if self.missing_images not in ("error", "skip"):
            raise ValueError(f"data.missing_images={self.missing_images!r}: choose 'error' or 'skip'")
        if not self.has_files and self.missing_images == "skip":
            raise ValueError("data.missing_images='skip' is given, but no train_file and validation_file")
        if self.only is not None:
            if self.has_files and not any(map(self.files, self.needed_splits)):
                fields = "test_file or data.validation_file" if self.only == "test" else "validation_file"
                raise ValueError(f"the {self.only} split is to be evaluated: give data.{fields}")
            return
        if self.train_file is None and self.test_file is not None:
            raise ValueError("data.test_file is given, but no train_file and validation_file")
        if (self.train_file is None) != (self.validation_file is None):
            missing = "validation_file" if self.validation_file is None else "train_file"
            aside = "; set rows aside for it" if missing == "validation_file" else ""
            raise ValueError(f"data.{missing} is missing: give both train_file and validation_file, or neither{aside}")
        if self.train_file is None and self.dataset is None and self.image_dir is not None:
            raise ValueError("data.image_dir is given, but no dataset, and no train_file and validation_file")

    def _check_dataset(self) -> None:
        if self.dataset is not None and self.has_files:
            given = next(split for split in SPLITS if self.files(split))
            raise ValueError(f"data.dataset and data.{given}_file are both given: choose one")
        for name in ("columns", "split_column", "streaming", "dataset_config", "dataset_revision"):
            if self.dataset is None and getattr(self, name):
                raise ValueError(f"data.{name} is given, but no dataset")
        if self.streaming and self.split_column:
            raise ValueError("data.streaming does not go with data.split_column: give a dataset that has splits")
        if isinstance(self.columns, str):
            self.columns = parse_json(self.columns, "data.columns")
        if self.columns is not None and not isinstance(self.columns, dict):
            raise ValueError(f"data.columns={self.columns!r}: must map our column names to the dataset's")

    @property
    def is_own(self) -> bool:
        """Whether the data are the user's own, and not the digit scenes that this project makes."""
        return self.dataset is not None or self.has_files or self.image_dir is not None

    @property
    def has_files(self) -> bool:
        """Whether the data are in files."""
        return any(self.files(split) for split in SPLITS)

    @property
    def needed_splits(self) -> tuple[str, ...]:
        """The splits to load. Own data without a test split are tested on the validation split."""
        if self.dataset is not None:
            has_test = self.test_split is not None
        else:
            has_test = self.test_file is not None or not self.has_files
        if self.only is None:
            return SPLITS if has_test else SPLITS[:2]
        return ("validation",) if self.only == "test" and not has_test else (self.only,)

    def files(self, split: str) -> list[str] | None:
        """The files of a split, `"train"`, `"validation"` or `"test"`."""
        return {"train": self.train_file, "validation": self.validation_file, "test": self.test_file}[split]

    def encoder(self, processor: ProcessorMixin) -> Encoder:
        """Return the encoder that makes model inputs from rows.

        Raises `ValueError` if the processor cannot do what the block says.
        """
        try:
            return Encoder(processor).replace(
                max_text_length=self.max_text_length, keep_aspect_ratio=self.keep_aspect_ratio
            )
        except ValueError as error:
            raise ValueError(f"data.{error}") from error

    def split_name(self, split: str) -> str | None:
        """The dataset's name for a split."""
        return {"train": self.train_split, "validation": self.validation_split, "test": self.test_split}[split]


def only_split(arguments: type[DataArguments], split: str) -> type[DataArguments]:
    """Return the class of a `data` block that loads only one split: `"validation"` or `"test"`."""
    return type(arguments.__name__, (arguments,), {"only": split, "__doc__": arguments.__doc__})
