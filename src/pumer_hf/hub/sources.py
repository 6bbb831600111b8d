"""What may be said in public about where a model and its data come from: ids on the Hub, and no path of a machine."""

import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import PureWindowsPath
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..results import Environment
from ..results.environment import without_tokens

LOCAL_FOLDERS = ("checkpoints", "data", "models", "outputs")
"""Where recipes keep their files: `checkpoints/x` looks like the id of a model on the Hub, but is none."""
RECIPES = "recipes"
"""The folder of this repository whose paths may be told."""
PATH_KEYS = ("_name_or_path", "name_or_path", "special_tokens_map_file", "tokenizer_file", "vocab_file", "merges_file")
"""Where config files say from where something was loaded."""


def may_be_hub_id(source: str) -> bool:
    """Whether this can be the id of a repository on the Hub, perhaps without a namespace, and is nothing on this
    machine, which would be read first.
    """
    try:
        validate_repo_id(source)
    except HFValidationError:
        return False
    return source.split("/")[0] not in LOCAL_FOLDERS and not os.path.exists(source)


def is_hub_id(source: str | None) -> bool:
    """Whether this is the id `namespace/name` of a repository on the Hub rather than a folder."""
    return bool(source) and "/" in str(source) and may_be_hub_id(str(source))


def public_name(source: str) -> str:
    """An id on the Hub as it is; of a path only its last part, except in the folder of recipes."""
    parts = [part for part in re.split(r"[\\/]+", source) if part]
    if is_hub_id(source) or not parts or parts[0] == RECIPES:
        return source
    return parts[-1]


def without_paths(value: Any) -> Any:
    """A value of JSON types in which each string that is an absolute path is replaced by its last part."""
    if isinstance(value, dict):
        return {name: without_paths(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(item) for item in value]
    return public_name(value) if isinstance(value, str) and is_absolute(value) else value


def is_absolute(text: str) -> bool:
    """Whether this is an absolute path, of any system, or one from a home folder."""
    return text.startswith(("/", "~", "file:")) or PureWindowsPath(text).is_absolute()


def public_words(words: Sequence[str]) -> list[str]:
    """The words of a command line that name files and folders by their last part and tell no token."""
    return [_public_word(word) for word in without_tokens(words)]


def launch_command(environment: Environment, script: str) -> str:
    """The command of a run as one types it, with its launcher; of a program that is not `script`, as it was.

    Args:
        environment: of the run.
        script: a file in the folder of recipes.
    """
    command = environment.command
    if command is None:
        return ""
    if command.program != script:
        return str(command)
    processes = None if environment.machine is None else environment.machine.processes
    several = ["--num_processes", str(processes)] if processes else []
    return shlex.join(["accelerate", "launch", *several, f"{RECIPES}/{script}", *command.arguments])


def _public_word(word: str) -> str:
    if not word.startswith("--"):
        return _public_value(word)
    flag, equals, value = word.partition("=")
    return f"{flag}={_public_value(value)}" if equals else word


def _public_value(value: str) -> str:
    if value.startswith(("{", "[")):
        return _public_json(value)
    is_url = "://" in value and not value.startswith("file:")
    return value if is_url else public_name(value)


def _public_json(text: str) -> str:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return text if value == without_paths(value) else json.dumps(without_paths(value))


def without_path_keys(config: Any) -> Any:
    """A config as JSON holds it, without the fields that say from where something was loaded."""
    if isinstance(config, dict):
        return {name: without_path_keys(value) for name, value in config.items() if name not in PATH_KEYS}
    return [without_path_keys(value) for value in config] if isinstance(config, list) else config
