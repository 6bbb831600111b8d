"""Functions that read files of users: JSON, and weights. Each error names the file."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

ZIP_START = b"PK\x03\x04"
MODEL_JSON = (
    "config.json",
    "model.safetensors.index.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""The JSON files of a saved model and its processor."""


def read_json(path: str | Path) -> Any:
    """Read a JSON file; raises `ValueError` if it holds anything else, `OSError` if it cannot be read."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # no UTF-8, or no JSON
        raise ValueError(f"{path}: not valid JSON: {error}") from error


def read_object(path: str | Path) -> dict[str, Any]:
    """Read a JSON file that holds an object. Errors are as in [`read_json`]."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must hold a JSON object, not a {type(value).__name__}")
    return value


def parse_json(text: str, name: str) -> Any:
    """Return the value of a flag that takes JSON.

    Args:
        text: JSON, or the name of a file with it.
        name: the name of the flag, for errors.

    Raises:
        ValueError: the text is neither; or the file holds no JSON.
    """
    if os.path.isfile(text):
        return read_json(text)
    try:
        return json.loads(text)
    except ValueError as error:
        if text.lstrip().startswith(("{", "[", '"')):
            raise ValueError(f"{name}={text!r}: not valid JSON: {error}") from error
        raise ValueError(f"{name}={text!r}: neither JSON nor a file with it") from error


def one_line(error: Exception) -> str:
    """Return the message of an error without line breaks."""
    return " ".join(str(error).split())


def check_safetensors(path: Path) -> None:
    """Raise `ValueError` if a file of weights is cut short or broken. Only its header is read."""
    try:
        with safe_open(path, "pt"):
            pass
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a safetensors file, or it is cut short ({path.stat().st_size:,} bytes): copy or download "
            f"it again ({error})"
        ) from error


def check_not_cut_short(path: Path) -> None:
    """Raise `ValueError` if a file of `torch.save` is an archive without its end."""
    with path.open("rb") as opened:
        is_archive = opened.read(len(ZIP_START)) == ZIP_START
    if is_archive and not zipfile.is_zipfile(path):
        raise cut_short(path)


def cut_short(path: Path) -> ValueError:
    """Return the error of a file that ends too early."""
    return ValueError(
        f"{path} is refused: it is cut short ({path.stat().st_size:,} bytes), as after a download that broke off: "
        "copy or download it again"
    )


def check_model_files(folder: Path) -> None:
    """Raise `ValueError` that names the first file of a saved model or processor that is broken or cut short."""
    for name in MODEL_JSON:
        if (folder / name).is_file():
            read_object(folder / name)
    for path in sorted(folder.glob("*.safetensors")):
        check_safetensors(path)
    for path in sorted(folder.glob("pytorch_model*.bin")):
        check_not_cut_short(path)
