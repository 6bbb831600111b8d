"""Datasets from the Hub: columns by our names, images undecoded. Nothing here runs code of the dataset."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from datasets import ClassLabel, Image, concatenate_datasets, load_dataset

from .arguments import DataArguments

SHUFFLE_BUFFER = 1000
Convert = Callable[[Any, Any], Any]


def load_hub_split(args: DataArguments, split: str, columns: Mapping[str, Convert | None]) -> Any:
    """Load a split.

    Args:
        args: `dataset`, `columns` and how the splits are called. With `streaming`, the training split is an
            `IterableDataset`, shuffled within a buffer; the others are always loaded, since metrics look rows up.
        split: `"train"`, `"validation"` or `"test"`.
        columns: our name of each column, and a function from a value and the column's feature to the value that the
            task wants, or None to take it as it is.

    Returns:
        A dataset with these columns and `origin`.
    """
    streaming = args.streaming and split == "train"
    dataset = _load(args, split, streaming)
    if dataset.features is None:
        raise ValueError(f"data.streaming: the columns of {args.dataset} are not known before they are read")
    rows = None if args.split_column is None else _rows_of_split(args, split, dataset)
    renamed = cast(dict, args.columns or {})
    source = {name: renamed.get(name, name) for name in columns}
    unknown = sorted(set(renamed) - set(columns))
    missing = [name for name in source.values() if name not in dataset.features]
    if unknown or missing:
        raise ValueError(
            f"data.columns={args.columns}: {args.dataset} has the columns {list(dataset.features)}, the task "
            f"needs {list(columns)}; name the dataset's column for each of ours that is called differently"
        )
    dataset = dataset.select_columns(list(dict.fromkeys(source.values())))
    dataset = dataset.rename_columns({theirs: ours for ours, theirs in source.items() if ours != theirs})
    for name, feature in dataset.features.items():
        if isinstance(feature, Image):
            dataset = dataset.cast_column(name, Image(decode=False))
    converts = {name: convert for name, convert in columns.items() if convert is not None}
    origin = f"{args.dataset}, {args.split_name(split)}"
    if streaming:
        return _convert_lazily(dataset, converts, origin)
    features = dataset.features
    for name, convert in converts.items():  # by column, so that the images are not written anew
        values = [convert(value, features[name]) for value in dataset[name]]
        dataset = dataset.remove_columns(name).add_column(name, values)
    dataset = dataset.add_column("origin", [f"{origin}, row {index}" for index in range(len(dataset))])
    return dataset if rows is None else dataset.select(rows)


def _load(args: DataArguments, split: str, streaming: bool) -> Any:
    kwargs = {"name": args.dataset_config, "revision": args.dataset_revision, "streaming": streaming}
    if args.split_column is None:
        return load_dataset(args.dataset, split=args.split_name(split), **kwargs)
    return concatenate_datasets(list(load_dataset(args.dataset, **kwargs).values()))


def _rows_of_split(args: DataArguments, split: str, dataset: Any) -> list[int]:
    if args.split_column not in dataset.features:
        raise ValueError(
            f"data.split_column={args.split_column!r}: {args.dataset} has the columns {list(dataset.features)}"
        )
    rows = [i for i, value in enumerate(dataset[args.split_column]) if value == args.split_name(split)]
    if not rows:
        raise ValueError(
            f"data.{split}_split={args.split_name(split)!r}: the column '{args.split_column}' of {args.dataset} has "
            "no such value"
        )
    return rows


def _convert_lazily(dataset: Any, converts: Mapping[str, Convert], origin: str) -> Any:
    """The rows of a streamed dataset, converted as they are read."""
    features = dataset.features

    def convert_row(row: dict[str, Any], index: int) -> dict[str, Any]:
        values = {name: convert(row[name], features[name]) for name, convert in converts.items()}
        return {**values, "origin": f"{origin}, row {index}"}

    return dataset.map(convert_row, with_indices=True).shuffle(seed=0, buffer_size=SHUFFLE_BUFFER)


def class_name(value: Any, feature: Any) -> str:
    """A label as the name of its class. `feature` knows the names if they are in the dataset."""
    if isinstance(feature, ClassLabel):
        return feature.int2str(value)
    if isinstance(value, str):
        return value
    raise ValueError(f"data.columns: the labels are numbers ({value!r}) without names: cast the column to ClassLabel")


def truth(value: Any, feature: Any) -> str:
    """A label of a statement, a name or a number, as `"True"` or `"False"`."""
    name = class_name(value, feature) if isinstance(feature, ClassLabel) else str(value)
    if name.lower() in ("true", "1"):
        return "True"
    if name.lower() in ("false", "0"):
        return "False"
    raise ValueError(f"data.columns: the label {value!r} is neither true nor false")


def strings(value: Any, feature: Any) -> list[str]:
    """Strings that come as one, as a list, or as VQA v2's list of objects with an `answer`."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):  # a list of objects, which an older `datasets` wrote as an object of lists
        return list(value["answer"])
    return [item["answer"] if isinstance(item, dict) else item for item in value]
