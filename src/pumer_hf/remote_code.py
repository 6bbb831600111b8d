"""The Python file that lies beside a saved model, so that the Auto classes load it without `import pumer_hf`.

`config.json` and `processor_config.json` point to it (`auto_map`), and with `trust_remote_code=True` transformers runs
it. It is thin: it only imports the installed package, so code and checkpoint cannot drift apart.
"""

from collections.abc import Sequence
from pathlib import Path

from .release import IN_CLONE, PACKAGE, install_commands

MODULE = "modeling_pumer"
FILE_NAME = f"{MODULE}.py"
HEADS = {
    "ForQuestionAnswering": "AutoModelForVisualQuestionAnswering",
    "ForImagesAndTextClassification": "AutoModelForSequenceClassification",
    "ForVisualEntailment": "AutoModelForSequenceClassification",
    "ForImageAndTextRetrieval": "AutoModelForSequenceClassification",
}
"""How a model class ends -> the Auto class that loads it."""

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
    ends = ("Config", "Model", *HEADS)
    names = sorted(f"PuMer{family}{end}" for family in ("Meter", "Vilt") for end in ends)
    names.insert(names.index("PuMerMeterModel") + 1, "PuMerMeterProcessor")
    commands = [f"`{command}`" for command in install_commands(repo_id) if command != IN_CLONE]
    ways = [" and ".join(commands), f"`{IN_CLONE}` in a clone of its repository"]
    message = f"this model needs the package {PACKAGE}: run {', or '.join(way for way in ways if way)}"
    return _SOURCE.format(names="".join(f"        {name},\n" for name in names), message=message)


def write_remote_code(folder: str | Path) -> None:
    """Put the file into a folder, which is made if there is none."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / FILE_NAME).write_text(source(), encoding="utf-8")


def auto_map(family: str, architectures: Sequence[str] | None) -> dict[str, str]:
    """`auto_map` of a config: the base classes, and the head that `architectures` names.

    Args:
        family: how all classes of the family begin: `"PuMerVilt"`.
        architectures: class names, as a config holds them; None for a config without a model.
    """
    classes = {"AutoConfig": f"{family}Config", "AutoModel": f"{family}Model"}
    for name in architectures or ():
        end = name.removeprefix(family)
        if end in HEADS:
            classes[HEADS[end]] = name
    return {auto_class: f"{MODULE}.{name}" for auto_class, name in classes.items()}
