"""The Python file that lies beside a saved model, so that the Auto classes load it without `import pumer_hf`.

`config.json` and `processor_config.json` point to it (`auto_map`), and with `trust_remote_code=True` transformers runs
it. It is thin: it only imports the installed package, so code and checkpoint cannot drift apart.
"""

from collections.abc import Iterable
from pathlib import Path

from .release import IN_CLONE, PACKAGE, install_commands

MODULE = "modeling_pumer"
FILE_NAME = f"{MODULE}.py"
AUTO_CLASSES: dict[str, str] = {}
"""The Auto class that loads each of our classes, by the names of both. `register_family` fills it."""

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
    """The text of the file.

    Args:
        repo_id: of the model on the Hub, for the error that says how to install this package; None if it is not
            there, or not with the wheel.
    """
    commands = [f"`{command}`" for command in install_commands(repo_id) if command != IN_CLONE]
    ways = [" and ".join(commands), f"`{IN_CLONE}` in a clone of its repository"]
    message = f"this model needs the package {PACKAGE}: run {', or '.join(way for way in ways if way)}"
    return _SOURCE.format(names="".join(f"        {name},\n" for name in sorted(AUTO_CLASSES)), message=message)


def write_remote_code(folder: str | Path) -> None:
    """Put the file into a folder, which is made if there is none."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / FILE_NAME).write_text(source(), encoding="utf-8")


def auto_map(names: Iterable[str]) -> dict[str, str]:
    """The `auto_map` of a file that is saved with some classes: where each Auto class finds its own.

    Args:
        names: of the classes. Those of other packages are left out: the file cannot import them.
    """
    return {AUTO_CLASSES[name]: f"{MODULE}.{name}" for name in names if name in AUTO_CLASSES}


def config_auto_map(config_class: str, architectures: Iterable[str] | None) -> dict[str, str]:
    """The `auto_map` of a config: its class, the model without a head, and the head that `architectures` names.

    Args:
        config_class: the name of the class, such as `"PuMerViltConfig"`.
        architectures: names of model classes, as a config holds them; None for a config without a model.
    """
    return auto_map([config_class, f"{config_class.removesuffix('Config')}Model", *(architectures or ())])
