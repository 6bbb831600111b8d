"""The Python file that is saved with a model, so that the Auto classes load the model without `import pumer_hf`.

`config.json` and `processor_config.json` name the file (`auto_map`), and with `trust_remote_code=True` transformers
runs it. The file only imports the installed package. So code and checkpoint always fit together.
"""

from collections.abc import Iterable
from pathlib import Path

from .release import IN_CLONE, PACKAGE, install_commands

MODULE = "modeling_pumer"
FILE_NAME = f"{MODULE}.py"
AUTO_CLASSES: dict[str, dict[str, str]] = {}
"""For each family, by the name of its config class: the Auto class that loads each of its classes that this package
has, by the names of both. `register_family` and `register_decoder` fill it.
"""

_SOURCE = '''"""Lets Auto classes load this checkpoint, with `trust_remote_code=True`. All code is in pumer-hf."""

try:
    {import_}
except ModuleNotFoundError as error:
    if error.name != "pumer_hf":
        raise
    raise ImportError({message!r}) from error
'''


def source(class_name: str, repo_id: str | None = None) -> str:
    """Return the text of the file. It imports the classes of one family, so that no file depends on another family.

    Args:
        class_name: of any class of the family. Of a family of another package, no class can be imported.
        repo_id: the id of the model on the Hub, for the error that says how to install this package. None if the model
            is not on the Hub, or is there without the wheel.
    """
    commands = [f"`{command}`" for command in install_commands(repo_id) if command != IN_CLONE]
    ways = [" and ".join(commands), f"`{IN_CLONE}` in a clone of its repository"]
    message = f"this model needs the package {PACKAGE}: run {', or '.join(way for way in ways if way)}"
    names = "".join(f"        {name},\n" for name in sorted(family_classes(class_name)))
    return _SOURCE.format(
        import_=f"from pumer_hf import (\n{names}    )" if names else "import pumer_hf", message=message
    )


def family_classes(class_name: str) -> dict[str, str]:
    """Return the part of [`AUTO_CLASSES`] that has a class; an empty one for a class of another package."""
    return next((classes for classes in AUTO_CLASSES.values() if class_name in classes), {})


def write_remote_code(folder: str | Path, class_name: str) -> None:
    """Write the file into a folder. The folder is made if it does not exist. [`source`] has `class_name`."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / FILE_NAME).write_text(source(class_name), encoding="utf-8")


def auto_map(names: Iterable[str]) -> dict[str, str]:
    """Return the `auto_map` for some saved classes: it says where each Auto class finds the class to load.

    Args:
        names: the names of the classes. Those of other packages are left out, because the file cannot import them.
    """
    return {
        auto_class: f"{MODULE}.{name}"
        for name in names
        for own, auto_class in family_classes(name).items()
        if own == name
    }


def config_auto_map(config_class: str, architectures: Iterable[str] | None) -> dict[str, str]:
    """Return the `auto_map` of a config: its class, the model without a head if the family has one, and the class that
    `architectures` names.

    Args:
        config_class: the name of the class, such as `"PuMerViltConfig"`.
        architectures: names of model classes, as a config holds them; None for a config without a model.
    """
    return auto_map([config_class, f"{config_class.removesuffix('Config')}Model", *(architectures or ())])
