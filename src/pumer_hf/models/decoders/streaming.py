"""`WholePromptStreamer`: what a streamer of the caller sees while a cut prompt is continued."""

from typing import Any

from torch import Tensor


class WholePromptStreamer:
    """Gives the whole prompt to a streamer, in the place of the cut one, and then each new token.

    Args:
        streamer: the streamer of the caller.
        prompt: long (B, L), the whole prompt.
    """

    def __init__(self, streamer: Any, prompt: Tensor):
        self.streamer, self.prompt = streamer, prompt.cpu()
        self.began = False

    def put(self, value: Tensor) -> None:
        """Pass on new tokens; the first time, the whole prompt."""
        self.streamer.put(value if self.began else self.prompt)
        self.began = True

    def end(self) -> None:
        """Say that there are no more tokens."""
        self.streamer.end()
