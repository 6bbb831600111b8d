"""Makes names and commands public: they may contain ids on the Hub, but no paths of this machine."""

import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PureWindowsPath
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..results import Command, Environment
from ..results.environment import without_tokens

LOCAL_FOLDERS = ("checkpoints", "data", "models", "outputs")
"""The folders in which recipes keep their files. A name such as `checkpoints/x` is a path, not an id on the Hub."""
RECIPES = "recipes"
"""The folder of this repository whose paths may be public."""
PATH_KEYS = ("_name_or_path", "name_or_path", "special_tokens_map_file", "tokenizer_file", "vocab_file", "merges_file")
"""The fields of config files that say where something was loaded from."""


def may_be_hub_id(source: str) -> bool:
    """Return whether this can be the id of a repository on the Hub, with or without a namespace.

    If this machine has a file or a folder of the same name, it would be read first. So the name is then no id.
    """
    try:
        validate_repo_id(source)
    except HFValidationError:
        return False
    return source.split("/")[0] not in LOCAL_FOLDERS and not os.path.exists(source)


def is_hub_id(source: str | None) -> bool:
    """Return whether this is the id `namespace/name` of a repository on the Hub, and no folder."""
    return bool(source) and "/" in str(source) and may_be_hub_id(str(source))


def public_name(source: str) -> str:
    """Return an id on the Hub as it is, and the last part of a path. Paths in the folder of recipes stay whole."""
    parts = [part for part in re.split(r"[\\/]+", source) if part]
    if is_hub_id(source) or not parts or parts[0] == RECIPES:
        return source
    return parts[-1]


def without_paths(value: Any) -> Any:
    """Return a value of JSON types in which each absolute path is replaced by its last part."""
    if isinstance(value, dict):
        return {name: without_paths(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(item) for item in value]
    return public_name(value) if isinstance(value, str) and is_absolute(value) else value


def is_absolute(text: str) -> bool:
    """Return whether this is an absolute path of any operating system, or a path from a home folder."""
    return text.startswith(("/", "~", "file:")) or PureWindowsPath(text).is_absolute()


def public_words(words: Sequence[str]) -> list[str]:
    """Return the words of a command line without tokens. Only the last part of each path remains."""
    return [_public_word(word) for word in without_tokens(words)]


def published_command(command: Command | None) -> Command | None:
    """Return a command for the public ([`public_words`])."""
    return command and replace(command, arguments=tuple(public_words(command.arguments)))


def published_environment(environment: Environment) -> Environment:
    """Return an environment for the public. Its command names files by the last part of their paths."""
    return replace(environment, command=published_command(environment.command))


def launch_command(environment: Environment, script: str) -> str:
    """Return the command of a run as one types it, with the launcher that it needs; empty if the command is unknown.

    Args:
        environment: the environment of the run.
        script: the file in the folder of recipes that runs such a recipe. It needs the launcher.
    """
    command = environment.command
    if command is None:
        return ""
    processes = None if environment.machine is None else environment.machine.processes
    launcher = ["accelerate", "launch", *(["--num_processes", str(processes)] if processes else [])]
    if command.program in (script, "pumer-hf"):
        command = command.without(["--resume"])  # who pastes it begins anew
    if command.program == script:
        return shlex.join([*launcher, f"{RECIPES}/{script}", *command.arguments])
    if command.program == "pumer-hf" and processes:
        return shlex.join([*launcher, "-m", "pumer_hf", *command.arguments])
    return str(command)


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
    """Return a config of JSON types without the fields that say where something was loaded from."""
    if isinstance(config, dict):
        return {name: without_path_keys(value) for name, value in config.items() if name not in PATH_KEYS}
    return [without_path_keys(value) for value in config] if isinstance(config, list) else config
