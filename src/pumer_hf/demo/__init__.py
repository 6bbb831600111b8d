"""A page on which one can try a model. `pumer-hf demo` serves it, or writes it as a Space."""

from .asker import Asker, Reply, Times
from .page import build_page, launch
from .space import export_space

__all__ = ["Asker", "Reply", "Times", "build_page", "export_space", "launch"]
