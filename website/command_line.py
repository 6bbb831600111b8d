"""The page about the command line, made from its parsers."""

import argparse

from pumer_hf.results import markdown_table
from pumer_hf_cli import COMMANDS, build_parsers


def page() -> str:
    """Return the page with a section for each command."""
    _, parsers = build_parsers()
    rows = [[f"[`{command.name}`](#pumer-hf-{command.name})", command.summary] for command in COMMANDS]
    sections = [section(command.name, command.example, parsers[command.name]) for command in COMMANDS]
    return f"""# The command line

`pumer-hf` is the command of the package; `python -m pumer_hf` is the same program. `pumer-hf COMMAND --help` prints
what stands below.

{markdown_table([["command", "what it does"], *rows])}

{chr(10).join(sections)}"""


def section(name: str, example: str, parser: argparse.ArgumentParser) -> str:
    """Return the section of a command: what it does, an example, and its arguments."""
    usage = " ".join(parser.format_usage().split()).removeprefix("usage: ")
    rows = [[names(action), meaning(action)] for action in parser._actions if action.dest != "help"]
    table = markdown_table([["argument", "what it means"], *rows]) if rows else "It takes no arguments."
    return f"""## pumer-hf {name}

{parser.description}

```sh
{example}
```

```text
{usage}
```

{table}
"""


def names(action: argparse.Action) -> str:
    """Return the names of an argument, and what to give it."""
    shown = action.metavar if action.metavar is not None else action.dest.upper()
    value = shown if isinstance(shown, str) else " ".join(shown)
    if not action.option_strings:
        return code(value)
    takes = "" if action.nargs == 0 else f" {value}"
    return ", ".join(code(f"{flag}{takes}") for flag in action.option_strings)


def meaning(action: argparse.Action) -> str:
    """Return the help of an argument, with its choices and its default if the help does not say them."""
    text = (action.help or "").replace("%%", "%")
    if action.choices is not None and str(next(iter(action.choices))) not in text:
        text += f"; one of {', '.join(map(str, action.choices))}"
    if action.nargs != 0 and action.default not in (None, argparse.SUPPRESS, []) and "default" not in text:
        text += f"; default: {action.default}"
    return text.replace("|", "\\|").replace("<", "&lt;")


def code(text: str) -> str:
    """Return a text as code in a table."""
    return f"`{text}`".replace("|", "\\|")
