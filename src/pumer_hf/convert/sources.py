"""Functions that read a checkpoint: a Lightning file, a state dict, a folder, or a model on the Hub.

They run no pickled code.
"""

import argparse
import pickle
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors.torch import load_file
from torch import Tensor

from ..reading import check_not_cut_short, check_safetensors, cut_short, one_line, read_object

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
CONTAINERS = ("model", "module", "model_state_dict")
"""The names under which trainers save the state dict, next to their own state."""


class _Inert:
    """Stands for a class that a Lightning file names (a callback) and that nothing here needs."""


class _Dict(dict):
    """Stands for a dict class of Lightning or sacred. It makes an `OrderedDict`: torch fills only plain dicts."""

    def __new__(cls, *args: Any) -> Any:
        return OrderedDict(*args)


# What a pickle may name, besides tensors and containers. None of these classes runs code of the file.
ALLOWED: dict[str, type] = {
    "argparse.Namespace": argparse.Namespace,
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint": _Inert,
    "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor": _Inert,
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping": _Inert,
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint": _Inert,
    "pytorch_lightning.utilities.parsing.AttributeDict": _Dict,
    "lightning_fabric.utilities.data.AttributeDict": _Dict,
    "lightning.fabric.utilities.data.AttributeDict": _Dict,
    "sacred.config.custom_containers.ReadOnlyDict": _Dict,
}


@dataclass(frozen=True)
class Checkpoint:
    """What a source holds."""

    name: str
    """The source as the user wrote it, for messages."""
    weights: dict[str, Tensor]
    config: dict[str, Any]
    """`config.json` of a folder; `hyper_parameters["config"]` of a Lightning file; empty if there is neither."""
    folder: Path
    """The folder of the other files of the checkpoint: labels and tokenizer."""


def read_checkpoint(source: str | Path) -> Checkpoint:
    """Read the weights and the config of a source: a file, a folder, or the id of a model on the Hub.

    Raises:
        ValueError: there is no such source, or it is not a checkpoint, or it holds more than data.
    """
    path = Path(source).expanduser()
    if path.is_file():
        content = load_weights_file(path)
        weights, config = split_lightning(content, path)
        return Checkpoint(str(source), weights, config, path.parent)
    if not path.is_dir():
        path = download(str(source))
    config_file = path / "config.json"
    config = read_object(config_file) if config_file.is_file() else {}
    return Checkpoint(str(source), folder_weights(path), config, path)


def download(repo_id: str) -> Path:
    """Download a model from the Hub, and return its local folder."""
    try:
        patterns = ["*.json", "*.txt", "*.safetensors", "*.bin"]
        return Path(snapshot_download(repo_id, allow_patterns=patterns))
    except (OSError, HFValidationError) as error:
        raise ValueError(
            f"source={repo_id!r} is neither a file, nor a folder, nor a model on the Hub: {one_line(error)}"
        ) from error


def folder_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights in a folder that `save_pretrained` made, in one file or in shards."""
    for name in WEIGHT_FILES:
        path = folder / name
        if path.is_file():
            shards = shard_files(path) if path.suffix == ".json" else [path]
            contents = [load_weights_file(shard) for shard in shards]
            return checked_tensors({key: value for content in contents for key, value in content.items()}, path)
    raise ValueError(f"{folder} holds no weights: looked for {', '.join(WEIGHT_FILES)}. You can also give a file")


def shard_files(index: Path) -> list[Path]:
    """Return the files that a shard index names. They are in its folder."""
    weight_map = read_object(index).get("weight_map", {})
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise ValueError(f"{index} names the shard {name!r}, which is not in its folder")
    return [index.parent / name for name in names]


def load_weights_file(path: Path) -> dict[str, Any]:
    """Read the dict in a safetensors file or in a file of `torch.save`. Only data is read.

    Raises:
        ValueError: the file is broken, or it wants to run code or to make objects that [`ALLOWED`] does not list.
    """
    if path.suffix == ".safetensors":
        check_safetensors(path)
        return load_file(path)
    check_not_cut_short(path)
    allowed: list[Any] = [(stand_in, name) for name, stand_in in ALLOWED.items()]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, LookupError, ValueError) as error:  # what garbage raises
        if isinstance(error, EOFError) or "unexpected EOF" in str(error):
            raise cut_short(path) from error
        raise ValueError(
            f"{path} is refused: it is no PyTorch checkpoint, or it holds more than tensors and plain data, which "
            f"could run code on this machine. {unsafe_part(str(error))}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not the dict of a checkpoint")
    return content


def unsafe_part(message: str) -> str:
    """Return the lines of torch's message that say what is wrong, without the advice to load the file anyway."""
    telling = ("GLOBAL", "Unsupported", "Trying to", "Can only", "reading")
    lines = [line.strip() for line in message.splitlines() if any(word in line for word in telling)]
    return " ".join(line for line in lines if "Re-running" not in line).strip()


def split_lightning(content: dict[str, Any], path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights and the config of a Lightning file. For a state dict the config is empty."""
    if "state_dict" not in content:
        inner = next((content[name] for name in CONTAINERS if isinstance(content.get(name), dict)), content)
        return checked_tensors(inner, path), {}
    parameters = content.get("hyper_parameters") or {}
    if isinstance(parameters, argparse.Namespace):
        parameters = vars(parameters)
    config = parameters.get("config", parameters) if isinstance(parameters, dict) else parameters
    if isinstance(config, argparse.Namespace):
        config = vars(config)
    if not isinstance(config, dict):
        raise ValueError(f"{path}: hyper_parameters is a {type(config).__name__}, not a dict")
    return checked_tensors(content["state_dict"], path), dict(config)


def checked_tensors(weights: Any, path: Path) -> dict[str, Tensor]:
    """Return `weights`. Raise `ValueError` if it is no state dict."""
    if not isinstance(weights, dict) or not weights:
        raise ValueError(f"{path} holds no state dict")
    odd = [str(name) for name, value in weights.items() if not isinstance(value, Tensor)]
    if odd:
        raise ValueError(f"{path} is no state dict: {', '.join(odd[:5])} hold no tensor")
    return dict(weights)
