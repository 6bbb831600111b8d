"""Makes a link of each name that a docstring refers to: [`Name`] leads to its place in the API reference.

mkdocstrings loads this file as an extension of griffe.
"""

import logging
import re
from functools import cache
from typing import Any

import griffe

from . import ROOT
from .reference import MODULES

LOG = logging.getLogger("mkdocs.plugins.names")
REFERENCE = re.compile(r"\[`(?P<name>[~\w.]+)`\](?:\((?P<module>pumer_hf[\w.]*)\)|(?![\[(]))")
"""A name, perhaps with the module in whose docstring it stood."""
OTHERS = re.compile(r"transformers\.|~")
"""The beginnings of names of other packages."""


@cache
def package() -> griffe.Module:
    """Return the package, read but not imported."""
    loaded = griffe.load("pumer_hf", search_paths=[ROOT / "src"], resolve_aliases=True)
    assert isinstance(loaded, griffe.Module)
    return loaded


@cache
def by_last_name() -> dict[str, list[Any]]:
    """Return all objects that the package defines, by the last part of their paths."""
    found: dict[str, list[Any]] = {}
    todo: list[Any] = [package()]
    while todo:
        for name, member in todo.pop().members.items():
            if not member.is_alias:
                found.setdefault(name, []).append(member)
                todo.append(member)
    return found


def find(name: str, scope: Any) -> str | None:
    """Return the full path of a name that a docstring mentions; None if there is no such name.

    The name is looked up in the object that the docstring describes, then in what holds this object, and at last in
    the whole package. There, functions and classes of modules come first, and then those in the same folder.
    """
    module = scope.module
    while scope is not None:
        if path := member_path(scope, name):
            return path
        scope = scope.parent
    if re.search(rf"^(\w+, )*{re.escape(name)}(, \w+)* = ", module.source, re.MULTILINE):
        return f"{module.path}.{name}"  # griffe does not see the names of `A, B = 1, 2`
    found = [one for one in by_last_name().get(name.rpartition(".")[2], []) if f".{one.path}".endswith(f".{name}")]
    of_modules = [one for one in found if one.parent.is_module] or found
    near = [one for one in of_modules if module.parent and one.path.startswith(f"{module.parent.path}.")] or of_modules
    return near[0].path if len(near) == 1 else None


def member_path(scope: Any, name: str) -> str | None:
    """Return the path of a member of a scope, such as `Class.method`, where it is defined; None without one."""
    member = scope
    for part in name.split("."):
        members = member.all_members if getattr(member, "is_class", False) else member.members
        if part not in members:
            return None
        member = members[part]
        if member.is_alias:
            try:
                member = member.final_target
            except (griffe.AliasResolutionError, griffe.CyclicAliasError):
                return member.target_path
    return member.path


def is_described(path: str) -> bool:
    """Return whether the reference has a place for the object with this path."""
    if path in MODULES:
        return True
    name = path.removeprefix("pumer_hf.")
    if name == path or any(part.startswith("_") for part in name.split(".")):
        return False
    try:
        found = package()[name]
    except KeyError:
        return False
    module = found.module.path
    while found.path != module:
        if not found.has_docstring:
            return False
        found = found.parent
    return module in MODULES


def link(name: str, scope: Any) -> str:
    """Return a link to the description of a name, or the name alone if it has none in the reference."""
    shown = f"`{name.lstrip('~')}`"
    if OTHERS.match(name):
        return shown
    path = find(name, scope)
    if path is None:
        LOG.warning("%s: [`%s`] is no name of the package, or one of several", scope.path, name)
        return shown
    return f"[{shown}][{path}]" if path.startswith("pumer_hf") and is_described(path) else shown


def linked(text: str, scope: Any) -> str:
    """Return a text with a link for each name that it refers to."""

    def made(match: re.Match[str]) -> str:
        module = (match["module"] or "").removeprefix("pumer_hf").removeprefix(".")
        return link(match["name"], package()[module] if module else scope)

    return REFERENCE.sub(made, text)


class Links(griffe.Extension):
    """The extension: it changes the docstrings of the package."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Link the names in all docstrings of the package, once it is read as a whole."""
        todo: list[Any] = [pkg]
        while todo:
            found = todo.pop()
            if found.docstring is not None:
                found.docstring.value = linked(found.docstring.value, found)
            todo += [member for member in found.members.values() if not member.is_alias]
