"""Serves the page of `pumer-hf demo`."""

import socket
from pathlib import Path
from typing import Any

from .kinds import kind_of
from .parts import load_gradio

LOCAL = "127.0.0.1"
"""The default address of the page, which only this machine can reach."""


def launch(
    checkpoint: str,
    teacher: str | None = None,
    examples: str | None = None,
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    name: str | None = None,
    **reduction: Any,
) -> None:
    """Open the page and serve it until interrupted.

    Args:
        checkpoint: folder or Hub id of a decoder model, or of a reduced encoder model for questions or entailment.
        teacher: folder or Hub id of an unreduced model to compare it with.
        examples: the argument `source` of [`find_examples`].
        host: the address to serve on; default: `GRADIO_SERVER_NAME`, or this machine alone if that is not set.
        port: the port to serve on; default: `GRADIO_SERVER_PORT`, or the first free one from 7860 if that is not set.
        share: whether to make a public link too, through Gradio's servers.
        name: the name in the heading; default: the Hub id, or the name of the folder.
        **reduction: `reduction=`, another schedule than the checkpoint's.
    """
    load_gradio()
    check_address(host, port)
    kind = kind_of(checkpoint)
    asker = kind.load(checkpoint, teacher, **reduction)
    page = kind.build_page(asker, name or display_name(checkpoint), kind.find_examples(examples, asker))
    page.launch(server_name=host, server_port=port, share=share, **kind.appearance(asker))


def check_address(host: str | None, port: int | None) -> None:
    """Raise `ValueError` if the page cannot be served there. Gradio would only fail, or wait, after all is loaded."""
    if port is not None and not 1 <= port <= 65535:
        raise ValueError(f"--port {port}: must be in [1, 65535]")
    try:
        family = socket.getaddrinfo(host or LOCAL, port)[0][0]
        socket.create_server((host or LOCAL, port or 0), family=family).close()
    except OSError as error:
        place = " ".join(f"--{name} {value}" for name, value in (("host", host), ("port", port)) if value is not None)
        raise ValueError(f"{place or LOCAL}: cannot serve there: {error.strerror}; choose another") from error


def display_name(checkpoint: str) -> str:
    """Return the id of a checkpoint on the Hub, or the name of its folder."""
    return Path(checkpoint).resolve().name if Path(checkpoint).is_dir() else checkpoint
