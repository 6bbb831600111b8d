"""The Python file that is saved with a model, so that the Auto classes load the model without `import pumer_hf`.

`config.json` and `processor_config.json` name the file (`auto_map`), and with `trust_remote_code=True` transformers
runs it. The file only imports the installed package. So code and checkpoint always fit together.
"""

from collections.abc import Iterable
from pathlib import Path

from .release import IN_CLONE, PACKAGE, install_commands

MODULE = "modeling_pumer"
FILE_NAME = f"{MODULE}.py"
AUTO_CLASSES: dict[str, str] = {}
"""From the name of each of our classes to the name of the Auto class that loads it. `register_family` fills it."""

_SOURCE = '''"""Lets Auto classes load this checkpoint, with `trust_remote_code=True`. All code is in pumer-hf."""

try:
    from pumer_hf import (
{names}    )
except ModuleNotFoundError as error:
    if error.name != "pumer_hf":
        raise
    raise ImportError({message!r}) from error
'''


def source(repo_id: str | None = None) -> str:
    """Return the text of the file.

    Args:
        repo_id: the id of the model on the Hub, for the error that says how to install this package. None if the model
            is not on the Hub, or is there without the wheel.
    """
    commands = [f"`{command}`" for command in install_commands(repo_id) if command != IN_CLONE]
    ways = [" and ".join(commands), f"`{IN_CLONE}` in a clone of its repository"]
    message = f"this model needs the package {PACKAGE}: run {', or '.join(way for way in ways if way)}"
    return _SOURCE.format(names="".join(f"        {name},\n" for name in sorted(AUTO_CLASSES)), message=message)


def write_remote_code(folder: str | Path) -> None:
    """Write the file into a folder. The folder is made if it does not exist."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / FILE_NAME).write_text(source(), encoding="utf-8")


def auto_map(names: Iterable[str]) -> dict[str, str]:
    """Return the `auto_map` for some saved classes: it says where each Auto class finds the class to load.

    Args:
        names: the names of the classes. Those of other packages are left out, because the file cannot import them.
    """
    return {AUTO_CLASSES[name]: f"{MODULE}.{name}" for name in names if name in AUTO_CLASSES}


def config_auto_map(config_class: str, architectures: Iterable[str] | None) -> dict[str, str]:
    """Return the `auto_map` of a config: its class, the model without a head, and the head that `architectures` names.

    Args:
        config_class: the name of the class, such as `"PuMerViltConfig"`.
        architectures: names of model classes, as a config holds them; None for a config without a model.
    """
    return auto_map([config_class, f"{config_class.removesuffix('Config')}Model", *(architectures or ())])
