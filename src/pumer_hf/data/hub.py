"""The reader of datasets from the Hub. Columns get our names, images stay undecoded, no code of a dataset runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Image, IterableDataset, concatenate_datasets, load_dataset_builder
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RevisionNotFoundError
from transformers.utils import logging

from .arguments import DataArguments
from .columns import Convert, Several, image_of, in_folder, is_undecoded_image, plain

SHUFFLE_BUFFER = 1000
IMAGE = Image(decode=False)
logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Reader:
    """Makes a row of a task from a row of a Hub dataset. An error names the row and the dataset's column."""

    converts: Mapping[str, Convert]
    """The converter of each column, by our name."""
    sources: Mapping[str, str]
    """The dataset's name of each column, by our name."""
    features: Mapping[str, Any]
    """The feature of each column, by the dataset's name."""
    folder: Path | None
    """The folder that the paths of images are relative to."""

    def value(self, name: str, value: Any, origin: str) -> Any:
        """Convert a value to our column `name`; None if the row has no label."""
        source = self.sources[name]
        try:
            found = self.converts[name](value, self.features[source])
            return in_folder(found, self.folder) if self.converts[name] is image_of else found
        except ValueError as error:
            raise ValueError(f"{origin}: the column {source!r} {error}") from error

    def row(self, values: Mapping[str, Any], origin: str, names: Iterable[str]) -> dict[str, Any] | None:
        """Convert a row to our columns `names`, and add `origin`; None if it has no label.

        `values` has the names of the dataset.
        """
        row: dict[str, Any] = {}
        for name in names:
            value = self.value(name, values[self.sources[name]], origin)
            if value is None:
                return None
            row.update(value if isinstance(value, Several) else {name: value})
        return {**row, "origin": origin}


def load_hub_split(
    args: DataArguments, split: str, columns: Mapping[str, Convert], unlabelled: list[str] | None = None
) -> Any:
    """Load a split of a Hub dataset.

    Args:
        args: the `data` block. With `streaming`, the training split is an `IterableDataset`, shuffled within a buffer.
            The other splits are always loaded, since metrics look rows up.
        split: `"train"`, `"validation"` or `"test"`.
        columns: the converter of each column, by our name, the label first. A row without a label is left out with a
            warning, and none of its other columns is read.
        unlabelled: a list. The origins of rows without a label are added to it, but not those of a stream.

    Returns:
        A dataset with these columns and `origin`.

    Raises:
        ValueError: there is no such dataset, split or column, or a row has a value that the task cannot use; the
            message names the argument, or the row and its column. Streamed rows are checked when they are read.
    """
    streaming = args.streaming and split == "train"
    dataset = load_split(args, split, streaming)
    if dataset.features is None:
        raise ValueError(
            f"data.dataset={args.dataset!r}: its columns are not known before it is read: do not stream it"
        )
    folder = args.image_dir or (args.dataset if Path(str(args.dataset)).is_dir() else None)
    reader = Reader(
        columns, _sources(args, dataset, columns), dataset.features, None if folder is None else Path(folder)
    )
    origin = f"{args.dataset}, {args.split_name(split)}"
    if streaming:
        return stream_rows(dataset, reader, origin)
    rows = range(len(dataset)) if args.split_column is None else _rows_of_split(args, split, dataset)
    return convert_rows(dataset, reader, origin, rows, unlabelled)


def log_unlabelled(number: int, total: int, first: str) -> None:
    """Warn that `number` of `total` rows have no label and are left out; `first` is the origin of the first one."""
    logger.warning("%d of %d rows have no label and are left out; the first is %s", number, total, first)


def convert_rows(
    dataset: Dataset, reader: Reader, origin: str, rows: Sequence[int], unlabelled: list[str] | None = None
) -> Dataset:
    """Convert the rows of a loaded dataset. Images are rewritten only if their column holds something else.

    `unlabelled`: see [`load_hub_split`].
    """
    images = [name for name, convert in reader.converts.items() if convert is image_of]
    without_label: list[str] = [] if unlabelled is None else unlabelled
    converted = _read_texts(dataset, reader, origin, rows, without_label)
    dataset = dataset.select_columns([reader.sources[name] for name in images])
    dataset = dataset.rename_columns({theirs: ours for ours in images if (theirs := reader.sources[ours]) != ours})
    rewritten = []
    for name in images:
        if is_undecoded_image(dataset.features[name]):
            dataset = dataset.cast_column(name, IMAGE)
            if _check_images(dataset, reader, name, converted):
                continue
        rewritten.append(name)
    for name in next(iter(converted.values())):
        column = [converted[index][name] if index in converted else None for index in range(len(dataset))]
        dataset = dataset.add_column(name, column)
    if len(converted) < len(dataset):
        dataset = dataset.select(list(converted))
    return _rewrite_images(dataset, reader, rewritten) if rewritten else dataset


def _read_texts(
    dataset: Any, reader: Reader, origin: str, rows: Sequence[int], unlabelled: list[str]
) -> dict[int, dict[str, Any]]:
    """Convert all columns but the images, and add `origin`. Return the rows with a label, by the number of the row.

    The origins of the other rows are added to `unlabelled`.
    """
    texts = [name for name, convert in reader.converts.items() if convert is not image_of]
    values = dataset.select_columns([reader.sources[name] for name in texts])[:]
    converted: dict[int, dict[str, Any]] = {}
    for index in rows:
        given = {name: column[index] for name, column in values.items()}
        row = reader.row(given, f"{origin}, row {index}", texts)
        if row is None:
            unlabelled.append(f"{origin}, row {index}")
        else:
            converted[index] = row
    if not converted:
        raise ValueError(
            f"{origin}: the column {reader.sources[texts[0]]!r} has no label in any of its {len(rows)} rows"
        )
    if unlabelled:
        log_unlabelled(len(unlabelled), len(rows), unlabelled[0])
    return converted


def _check_images(dataset: Any, reader: Reader, name: str, rows: Mapping[int, Mapping[str, Any]]) -> bool:
    """Check that every row has an image, and return whether every path is already the path of its file.

    The bytes of the images are not read.
    """
    column = dataset.data.column(name)
    without_bytes = pc.is_null(pc.struct_field(column, "bytes")).to_pylist()
    paths = pc.struct_field(column, "path").to_pylist()
    is_unchanged = True
    for index, row in rows.items():
        image = {"path": paths[index], "bytes": None if without_bytes[index] else b""}
        is_unchanged &= reader.value(name, image, row["origin"])["path"] == paths[index]
    return is_unchanged


def _rewrite_images(dataset: Any, reader: Reader, names: Sequence[str]) -> Any:
    """Rewrite these columns, in the cache, so that they hold undecoded `datasets` images."""

    def rewrite(table: pa.Table) -> pa.Table:
        origins = table.column("origin").to_pylist()
        for name in names:
            values = zip(table.column(name).to_pylist(), origins, strict=True)
            column = pa.array([reader.value(name, value, origin) for value, origin in values], IMAGE.pa_type)
            table = table.set_column(table.column_names.index(name), name, column)
        return table

    features = dataset.features.copy()
    features.update(dict.fromkeys(names, IMAGE))
    rewritten = dataset.with_format("arrow").map(rewrite, batched=True, batch_size=100, features=features)
    return rewritten.with_format(None)


def stream_rows(dataset: IterableDataset, reader: Reader, origin: str) -> IterableDataset:
    """Convert the rows of a streamed dataset while they are read."""
    # Rows are counted in the order of reading, and the order of several files changes with each epoch.
    which = "row" if dataset.num_shards == 1 else "streamed row"
    unlabelled: list[int] = []

    def convert_row(values: dict[str, Any], index: int) -> dict[str, Any]:
        row = reader.row(values, f"{origin}, {which} {index}", reader.converts)
        if row is None and not unlabelled:
            unlabelled.append(index)
            logger.warning("rows without a label are left out; the first is %s, %s %d", origin, which, index)
        return row or {"origin": None}

    rows = dataset.decode(False).map(convert_row, with_indices=True, remove_columns=list(dataset.features))
    rows = rows.filter(lambda origin: origin is not None, input_columns=["origin"])
    return rows.shuffle(seed=0, buffer_size=SHUFFLE_BUFFER)


def _sources(args: DataArguments, dataset: Any, columns: Mapping[str, Convert]) -> dict[str, str]:
    """The dataset's name of each column, by our name."""
    renamed = cast(dict, args.columns or {})
    sources = {name: renamed.get(name, name) for name in columns}
    unknown = sorted(set(renamed) - set(columns))
    missing = [source for source in sources.values() if source not in list(dataset.features)]
    if unknown or missing:
        raise ValueError(
            f"data.columns={args.columns}: {args.dataset} has the columns {list(dataset.features)}, the task "
            f"needs {list(columns)}; name the dataset's column for each of ours that is called differently"
        )
    twice = {source for source in sources.values() if list(sources.values()).count(source) > 1}
    if twice:
        raise ValueError(
            f"data.columns={args.columns}: {sorted(twice)} would be two of our columns at once; those are {sources}"
        )
    return sources


def load_split(args: DataArguments, split: str, streaming: bool) -> Any:
    """Load a split, or, if `split_column` tells splits apart, all of them as one. An error names the argument."""
    builder = _builder(args)
    name = args.split_name(split) if args.split_column is None else None
    if not streaming:
        try:
            builder.download_and_prepare()
        except (DatasetsError, ConnectionError, FileNotFoundError, HfHubHTTPError, ValueError) as error:
            raise _unreadable(args, error) from error
    try:
        dataset = builder.as_streaming_dataset(split=name) if streaming else builder.as_dataset(split=name)
    except pa.ArrowInvalid as error:
        raise _unreadable(args, error) from error
    except ValueError as error:
        raise ValueError(_line(f"data.{split}_split={name!r}: {args.dataset}: {error}")) from error
    return concatenate_datasets(list(dataset.values())) if name is None else dataset


def _unreadable(args: DataArguments, error: Exception) -> ValueError:
    """The error of a dataset that exists but cannot be read."""
    cause = "" if error.__cause__ is None else f" {error.__cause__}"
    return ValueError(_line(f"data.dataset={args.dataset!r}: cannot be read: {error}{cause}"))


def _builder(args: DataArguments) -> Any:
    """Return the builder of the dataset, before any data are read."""
    dataset, is_folder = str(args.dataset), Path(str(args.dataset)).is_dir()
    if is_folder and args.dataset_revision is not None:
        raise ValueError(
            f"data.dataset_revision={args.dataset_revision!r}: {dataset} is a folder here, without revisions"
        )
    if not dataset.strip():
        raise ValueError(f"data.dataset={dataset!r}: give a folder of data files, or the id of a dataset")
    try:
        return load_dataset_builder(dataset, name=args.dataset_config, revision=args.dataset_revision)
    except (ConnectionError, FileNotFoundError, HfHubHTTPError, HFValidationError) as error:
        if isinstance(error.__cause__, RevisionNotFoundError):
            raise ValueError(_line(f"data.dataset_revision={args.dataset_revision!r}: {error}")) from error
        problem = "" if is_folder else "not a folder here, and not reachable on the Hub: "
        raise ValueError(
            _line(f"data.dataset={dataset!r}: {problem}{error} (give a folder of data files, or the id of a dataset)")
        ) from error
    except RuntimeError as error:  # a loading script
        way_out = "" if is_folder else " (data.dataset_revision='refs/convert/parquet' may have its data)"
        raise ValueError(_line(f"data.dataset={dataset!r}: {error}{way_out}")) from error
    except ValueError as error:
        raise ValueError(_line(f"data.dataset_config={args.dataset_config!r}: {dataset}: {error}")) from error


def _line(message: str) -> str:
    """Return a message in one line."""
    return " ".join(message.split())


def _rows_of_split(args: DataArguments, split: str, dataset: Any) -> list[int]:
    if args.split_column not in dataset.features:
        raise ValueError(
            f"data.split_column={args.split_column!r}: {args.dataset} has the columns {list(dataset.features)}"
        )
    feature = dataset.features[args.split_column]
    values = [plain(value, feature) for value in dataset[args.split_column]]
    rows = [i for i, value in enumerate(values) if value == args.split_name(split)]
    if not rows:
        raise ValueError(
            f"data.{split}_split={args.split_name(split)!r}: the column '{args.split_column}' of {args.dataset} has "
            f"no such value, but {sorted(set(map(str, values)))[:20]}"
        )
    return rows
