"""Readers of the files that users bring: official files of the tasks, and plain JSONL. Errors name file and row."""

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, List, Value

from ..inputs import check_unicode

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""The endings of picture files, where a picture is found by its number."""
FindImage = Callable[[str], dict[str, Any]]
"""Takes the origin of a row and returns its undecoded image. Raises `FileNotFoundError` if the image is missing."""

FEATURES = Features(
    {
        "image": Image(decode=False),
        "question": Value("string"),
        "answers": List(Value("string")),
        "origin": Value("string"),
    }
)

VQA_V2_FEATURES = Features({**FEATURES, "consensus": Value("string")})

QUESTION_FEATURES = Features(
    {
        "image": Image(decode=False),
        "question": Value("string"),
        "question_id": Value("int64"),
        "origin": Value("string"),
    }
)


def read_vqa_files(files: list[str], image_dir: str | None = None, skipped: list[str] | None = None) -> Dataset:
    """Read one split of questions and answers.

    Args:
        files: either one `.jsonl` file, each line an object with `image` (a path), `question`, and `answer` (a string)
            or `answers` (a list, one per annotator); or the two official VQA v2 `.json` files, questions and
            annotations.
        image_dir: folder of the images; for JSONL, image paths are relative to it (default: the folder of the file).
            VQA v2 images are found by the number at the end of their names (`COCO_train2014_000000000009.jpg`), there
            and in subfolders.
        skipped: see [`to_dataset`].

    Returns:
        A dataset with the columns `image` (path), `question`, `answers` and `origin` (file and row, for error
        messages). VQA v2's files also give `consensus`: their `multiple_choice_answer`, None in a row without one.

    Raises:
        FileNotFoundError: a file or an image is missing.
        ValueError: a file is empty, not JSON, or lacks a field, or two images have the number that a question names.
            The message names file, row and field.
    """
    paths = existing_files(files)
    features = FEATURES
    if len(paths) == 1 and paths[0].suffix != ".json":
        rows = _read_jsonl(paths[0], Path(image_dir) if image_dir else paths[0].parent)
    elif len(paths) == 2:
        if image_dir is None:
            raise ValueError(f"{paths[0]}: VQA v2 files need image_dir, the folder of their images")
        rows, features = _read_vqa_v2(paths, Path(image_dir)), VQA_V2_FEATURES
    else:
        raise ValueError(f"{', '.join(files)}: give one .jsonl file, or VQA v2's two .json files")
    return to_dataset(rows, features, f"{paths[0]}: the file holds no question", skipped)


def read_vqa_questions(file: str, image_dir: str, question_ids: Collection[int] | None = None) -> Dataset:
    """Read VQA v2's official questions without answers, for a split whose answers are not public.

    Args:
        file: the official file.
        image_dir: folder of the images.
        question_ids: read only these questions. The others need no image.

    Returns:
        A dataset with the columns `image`, `question`, `question_id` and `origin`.

    Raises:
        FileNotFoundError, ValueError: see [`read_vqa_files`].
    """
    (path,) = existing_files([file])
    questions = json_field(json_object(path.read_bytes(), file), "questions", list, file)
    rows = _questions(path, questions, Path(image_dir), question_ids)
    which = "" if question_ids is None else f" with one of the {len(question_ids)} question_ids that are wanted"
    return to_dataset(rows, QUESTION_FEATURES, f"{path}: the file holds no question{which}")


def read_vqa_answers(file: str) -> dict[int, list[str]]:
    """Read the annotators' answers in VQA v2's official annotations, by question_id.

    Raises:
        FileNotFoundError, ValueError: see [`read_vqa_files`].
    """
    (path,) = existing_files([file])
    return _answers(path, json_field(json_object(path.read_bytes(), file), "annotations", list, file))


def existing_files(files: list[str]) -> list[Path]:
    """Return the paths of files. Raises `FileNotFoundError` if one is missing."""
    paths = [Path(name) for name in files]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such file")
    return paths


def to_dataset(
    rows: Iterable[dict[str, Any]], features: Features, empty: str, skipped: list[str] | None = None
) -> Dataset:
    """Make a dataset from rows.

    Args:
        rows: values by column; an image is a [`FindImage`].
        features: the features of the dataset.
        empty: the message of the error if there are no rows.
        skipped: a list. A row whose image is missing is left out, and its origin is added to this list. None: such a
            row is an error.

    Raises:
        ValueError: there are no rows, or all are left out.
        FileNotFoundError: an image is missing, and `skipped` is None.
    """
    columns: dict[str, list] = {name: [] for name in features}
    for row in rows:
        origin = row["origin"]
        try:
            values = {name: value(origin) if callable(value) else value for name, value in row.items()}
        except FileNotFoundError as error:
            if skipped is None:
                raise
            skipped.append(origin)
            empty = f"data.missing_images='skip' leaves out all rows, {len(skipped)} of them: {error}"
            continue
        for name, value in values.items():
            columns[name].append(value)
    if not columns["origin"]:
        raise ValueError(empty)
    return Dataset.from_dict(columns, features=features)


def read_objects(files: list[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the objects of a file with one JSON object per line, each with its origin. `files` names one file."""
    if len(files) != 1:
        raise ValueError(f"{', '.join(files)}: give one file with a JSON object per line")
    (path,) = existing_files(files)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                origin = f"{path}, line {number}"
                yield json_object(line, origin), origin


def image_in(folder: Path, *names: str) -> FindImage:
    """Return the function that finds the first of several names in a folder ([`find_image`])."""
    return partial(find_image, folder, names)


def find_image(folder: Path, names: Sequence[str], origin: str) -> dict[str, Any]:
    """Return the first of several names that is a file in `folder`, as an undecoded `datasets` image."""
    for name in names:
        if (folder / name).is_file():
            return {"path": str(folder / name), "bytes": None}
    raise FileNotFoundError(f"{origin}: there is no image {folder / names[0]}")


def _read_jsonl(path: Path, image_dir: Path) -> Iterator[dict[str, Any]]:
    for row, origin in read_objects([str(path)]):
        answers = row["answers"] if "answers" in row else [json_field(row, "answer", str, origin)]
        if not isinstance(answers, list) or not answers or not all(isinstance(item, str) for item in answers):
            raise ValueError(f"{origin}: 'answers' must be a list of at least one string, got {answers!r}")
        for answer in answers:
            if not answer.strip():
                raise ValueError(f"{origin}: an answer must hold text, got {answer!r}")
            check_unicode(answer, f"{origin}: an answer")
        yield {
            "image": image_in(image_dir, json_field(row, "image", str, origin)),
            "question": json_text(row, "question", origin),
            "answers": answers,
            "origin": origin,
        }


def _read_vqa_v2(paths: list[Path], image_dir: Path) -> Iterator[dict[str, Any]]:
    contents = {}
    for path in paths:
        content = json_object(path.read_bytes(), str(path))
        kind = next((kind for kind in ("questions", "annotations") if isinstance(content.get(kind), list)), None)
        if kind is None:
            raise ValueError(f"{path}: a VQA v2 file has a list 'questions' or 'annotations', found {sorted(content)}")
        contents[kind] = path, content[kind]
    if len(contents) < 2:
        raise ValueError(f"{paths[0]}, {paths[1]}: one file must hold 'questions', the other 'annotations'")
    path, questions = contents["questions"]
    annotations_path, annotations = contents["annotations"]
    if not questions:
        raise ValueError(f"{path}: the file holds no question")
    answers = _answers(annotations_path, annotations)
    consensus = _consensus(annotations_path, annotations)
    for row in _questions(path, questions, image_dir):
        question_id = row.pop("question_id")
        if question_id not in answers:
            raise ValueError(f"{row['origin']}: {annotations_path} has no annotation for question_id {question_id}")
        yield {**row, "answers": answers[question_id], "consensus": consensus.get(question_id)}


def _answers(path: Path, annotations: list[Any]) -> dict[int, list[str]]:
    """The answers in VQA v2's annotations, by question_id."""
    answers = {}
    for number, annotation in enumerate(annotations):
        origin = f"{path}, annotation {number}"
        given = [json_field(item, "answer", str, origin) for item in json_field(annotation, "answers", list, origin)]
        if not given:
            raise ValueError(f"{origin}: 'answers' must be a list of at least one answer")
        answers[json_field(annotation, "question_id", int, origin)] = given
    return answers


def _consensus(path: Path, annotations: list[Any]) -> dict[int, str]:
    """The `multiple_choice_answer` in VQA v2's annotations, by question_id. Not all annotations have one."""
    name = "multiple_choice_answer"
    return {
        annotation["question_id"]: json_field(annotation, name, str, f"{path}, annotation {number}")
        for number, annotation in enumerate(annotations)
        if name in annotation
    }


def _questions(
    path: Path, questions: list[Any], image_dir: Path, question_ids: Collection[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield VQA v2's questions as rows without answers: all of them, or those with certain ids."""
    images = images_by_number(image_dir)
    for number, question in enumerate(questions):
        origin = f"{path}, question {number}"
        question_id, image_id = (json_field(question, name, int, origin) for name in ("question_id", "image_id"))
        if question_ids is not None and question_id not in question_ids:
            continue
        yield {
            "image": partial(_numbered_image, images.get(image_id, []), image_dir, image_id),
            "question": json_text(question, "question", origin),
            "question_id": question_id,
            "origin": origin,
        }


def images_by_number(image_dir: Path) -> dict[int, list[Path]]:
    """Find the pictures in a folder and its subfolders, by the number at the end of their names. Ignores hidden files.

    Raises `FileNotFoundError` if there is no such folder.
    """
    if not image_dir.is_dir():
        raise FileNotFoundError(f"image_dir={image_dir}: there is no such folder")
    images: dict[int, list[Path]] = {}
    visited: set[str] = set()  # a link may lead to a folder a second time
    for folder, subfolders, names in os.walk(image_dir, followlinks=True):
        if os.path.realpath(folder) in visited:
            subfolders.clear()
            continue
        visited.add(os.path.realpath(folder))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            stem, ending = os.path.splitext(name)
            number = re.search(r"(\d+)$", stem)
            if number and ending.lower() in PICTURES and not name.startswith("."):
                images.setdefault(int(number[1]), []).append(Path(folder, name))
    return images


def _numbered_image(found: Sequence[Path], image_dir: Path, image_id: int, origin: str) -> dict[str, Any]:
    """Return the only image with a number, undecoded."""
    if not found:
        raise FileNotFoundError(
            f"{origin}: {image_dir} has no image with the number {image_id}, also not in its subfolders"
        )
    if len({os.path.realpath(path) for path in found}) > 1:
        raise ValueError(
            f"{origin}: {found[0]} and {found[1]} both have the number {image_id}: keep only one of them there"
        )
    return {"path": str(found[0]), "bytes": None}


def json_object(text: bytes, origin: str) -> dict[str, Any]:
    """Parse a JSON object. Raises `ValueError` with the origin if the text is anything else."""
    try:
        value = json.loads(text)
    except ValueError as error:  # not JSON, or not UTF-8
        raise ValueError(f"{origin}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{origin}: expected a JSON object, got {type(value).__name__}")
    return value


def json_text(row: Any, name: str, origin: str) -> str:
    """Return a field of a JSON object that must hold text, not only blanks."""
    text = json_field(row, name, str, origin)
    if not text.strip():
        raise ValueError(f"{origin}: the field '{name}' must hold text, got {text!r}")
    return text


def json_field(row: Any, name: str, kind: type, origin: str) -> Any:
    """Return a field of a JSON object. It must be there and have the type `kind`."""
    if not isinstance(row, dict) or not isinstance(row.get(name), kind):
        found = f"got {row[name]!r}" if isinstance(row, dict) and name in row else "it is missing"
        raise ValueError(f"{origin}: the field '{name}' must be a {kind.__name__}, but {found}")
    for text in row[name] if kind is list else [row[name]]:
        if isinstance(text, str):
            check_unicode(text, f"{origin}: the field '{name}'")
    return row[name]
