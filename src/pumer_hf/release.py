"""How to install this package. Only this file knows whether it is published; cards, Spaces and errors ask it."""

import re
import shlex
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement

PACKAGE = "pumer-hf"
PUBLISHED = False
"""Whether PyPI has this package. Whoever publishes it for the first time sets this to True before."""
REPOSITORY = "https://github.com/pumer-hf/pumer-hf"
"""The address of the repository, which `git clone` takes too."""
DOCS = "https://pumer-hf.github.io/pumer-hf/"
"""The address of the documentation."""
LICENSE = "apache-2.0"
"""The licence of this project, as the Hub abbreviates it."""
WHEELS = "pumer_hf-*.whl"
"""The wheels of this package, of any version."""
DOWNLOADS = "pumer-hf"
"""The folder into which a reader of a card downloads the wheel."""
IN_CLONE = "pip install -e ."
"""The line for a shell that installs this package in a clone of its repository."""


def needs_wheel() -> bool:
    """Return whether PyPI does not have this package, so that a model on the Hub must carry a wheel of it."""
    return not PUBLISHED


def install_commands(repo_id: str | None = None) -> list[str]:
    """Return the lines for a shell that install this package.

    Args:
        repo_id: a model on the Hub. It carries the wheel if [`needs_wheel`] is True. Without a `repo_id`, the line is
            then for a clone.
    """
    if PUBLISHED:
        return [f"pip install {PACKAGE}"]
    if repo_id is None:
        return [IN_CLONE]
    return [
        f"hf download {repo_id} --include '{WHEELS}' --local-dir {DOWNLOADS}",
        f"pip install {DOWNLOADS}/*.whl",
    ]


def wrong_installs(text: str, repo_id: str) -> list[str]:
    """Return the commands in a text that install this package in another way than [`install_commands`]."""
    found = re.findall(r"(?:pip install|hf download) [^`\n]*(?:pumer[-_]hf|-e \.)[^`\n]*", text)
    return [command for command in found if command.strip() not in install_commands(repo_id)]


def extra_command(extra: str) -> str:
    """Return the line for a shell that installs what an extra of this package needs.

    The line names the packages and not the extra. So it works for every way in which this package was installed.

    Args:
        extra: a name under `options.extras_require` in setup.cfg.
    """
    try:
        lines = requires(PACKAGE) or []
    except PackageNotFoundError:  # this code runs in a clone that is not installed
        return shlex.join(["pip", "install", "-e", f".[{extra}]"])
    marked = [Requirement(line) for line in lines if "extra" in line]
    needed = [found for found in marked if found.marker and found.marker.evaluate({"extra": extra})]
    names = [f"{requirement.name}{requirement.specifier}" for requirement in needed]
    if not names:
        raise ValueError(f"extra={extra!r}: the installed {PACKAGE} has no such extra")
    return shlex.join(["pip", "install", *names])
