"""What the pages for encoders and for decoders share: Gradio, its look, the image, the examples, and messages."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image as PILImage

from ..images import DataError, ImageSource, open_image
from ..release import extra_command
from .examples import Example
from .looks import CSS, HEAD, PICK, PIXELATED_CSS
from .views import examples_view, message_view

HINT = "Give an image and a text, or click an example."
ASK = "Press Ask to ask about this image."


def load_gradio() -> Any:
    """Import Gradio so that it sends no statistics; raise `ImportError`, which says what to do, if it is missing."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # Otherwise Gradio stores the pictures and texts of visitors in their browsers. Older versions ignore the option.
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise ImportError(f"the page needs Gradio: {extra_command('demo')} ({error})") from error
    return gradio


def themed(pixelated: bool) -> dict[str, Any]:
    """Return the arguments for the look of a page, which Gradio takes at the launch. It downloads none of it.

    Args:
        pixelated: whether images are shown without smoothing, since the model's images have few pixels.
    """
    colours = load_gradio().themes.colors
    theme = (
        load_gradio()
        .themes.Base(primary_hue=colours.indigo, font=["system-ui", "sans-serif"], font_mono=["monospace"])
        .set(button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700")
    )
    return {"theme": theme, "css": CSS + (PIXELATED_CSS if pixelated else ""), "head": HEAD}


def image_input(gr: Any, image: PILImage.Image | None) -> Any:
    """Make the field for the image. It starts with `image`."""
    picture = gr.Image(
        image,
        type="filepath",
        image_mode=None,
        format="png",
        label="Image",
        height=280,
        sources=["upload", "clipboard"],
        elem_id="image",
    )
    # For a file that is no picture, our sentence appears once. Gradio would show an error in each part of the page.
    picture.preprocess = uploaded_path
    return picture


def show_examples(gr: Any, examples: Sequence[Example], outputs: list[Any]) -> Any:
    """Show a button for each example, and return the event of a click; None without examples."""
    import gradio  # the annotation of `pick` needs this name

    if not examples:
        return None

    def pick(event: gradio.EventData) -> Example:
        return examples[event.index]

    chosen = gr.HTML(examples_view(examples), js_on_load=PICK, padding=False, elem_id="examples")
    return chosen.click(pick, outputs=outputs, show_progress="hidden", api_name=False)


def uploaded_path(payload: Any) -> str | None:
    """Return the path where Gradio stores an upload, or its `data:` URL. Gradio itself would fail on a file that is no
    picture.
    """
    if payload is None or payload.path:
        return None if payload is None else str(payload.path)
    return str(payload.url) if (payload.url or "").startswith("data:") else None


def unchanged(value: Any) -> Any:
    """Return the value of a slider as it is. Gradio itself would fail on an empty field."""
    return value


def showing(values: Sequence[str]) -> str:
    """Return JavaScript that shows values at once. It does not wait for the answer that is being computed."""
    return f"() => {json.dumps(values)}"


def readable(image: ImageSource | None) -> Any:
    """Return a sentence that says why an image cannot be read. If it can be read, nothing changes."""
    if image is not None:
        try:
            open_image(image)
        except DataError as error:
            return unreadable_view(image, error)
    return load_gradio().skip()


def unreadable_view(image: ImageSource, error: DataError) -> str:
    """Say why an image has no answer. Visitors see the name of the file, but not its folder."""
    message = str(error).replace(str(image), Path(str(image)).name)
    return message_view(f"{message[0].upper()}{message[1:]}.", problem=True)
