"""The page, in Gradio."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..images import ImageSource
from ..reducers import METHODS
from .asker import WARMUP, Asker, Times
from .examples import Example, find_examples
from .schedules import MAX_RATIO, STEP, in_words, moved, slider_values, title

TOP = 5
PIXELATED_BELOW = 128
"""Models that see fewer pixels a side get their pictures shown without smoothing."""
CSS = """
.gradio-container {max-width: 1360px !important; margin: 0 auto;}
#speed table {width: 100%; border-collapse: collapse;}
#speed th, #speed td {border: 1px solid var(--border-color-primary) !important; padding: 6px 12px;}
#speed td {overflow-wrap: normal; word-break: normal;}
#layers img {width: 100%; object-fit: contain;}
#examples td, #examples th {padding: 4px 8px;}
"""
PIXELATED_CSS = "#image img {width: 100%; height: 100%; object-fit: contain; image-rendering: pixelated;}"
Gflops = tuple[float, float | None]
"""Of the reduced model, and of the one that it is compared with."""
INTERRUPTED = "not measured: another question came first; press Ask"
HINT = "Give an image and a text, or click an example."


def load_gradio() -> Any:
    """Gradio, told to send nothing home; raises `ImportError` with what to do if it is missing."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise ImportError(f"the page needs Gradio: pip install 'pumer-hf[demo]' ({error})") from error
    return gradio


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
        checkpoint: folder or Hub id of a reduced model for questions or entailment.
        teacher: the same of an unreduced model to compare it with.
        examples: as of [`find_examples`].
        host: address to serve on; default: `GRADIO_SERVER_NAME`, else this machine alone.
        port: default: `GRADIO_SERVER_PORT`, else the first free one from 7860.
        share: also make a public link, through Gradio's servers.
        name: for the heading; default: the Hub id, or the name of the folder.
        **reduction: `reduction=`, another schedule than the checkpoint's.
    """
    load_gradio()
    check_address(host, port)
    asker = Asker.load(checkpoint, teacher, **reduction)
    name = name or display_name(checkpoint)
    page = build_page(asker, name, find_examples(examples, asker.model, asker.processor))
    page.launch(server_name=host, server_port=port, share=share, **appearance(asker))


def check_address(host: str | None, port: int | None) -> None:
    """Raise `ValueError` if the page cannot be served there; else Gradio would fail, or wait, once all is loaded."""
    if port is not None and not 1 <= port <= 65535:
        raise ValueError(f"--port {port}: must be in [1, 65535]")
    try:
        family = socket.getaddrinfo(host or "127.0.0.1", port)[0][0]
        socket.create_server((host or "127.0.0.1", port or 0), family=family).close()
    except OSError as error:
        place = " ".join(f"--{name} {value}" for name, value in (("host", host), ("port", port)) if value is not None)
        raise ValueError(f"{place}: cannot serve there: {error.strerror}; choose another") from error


def display_name(checkpoint: str) -> str:
    """The id of a checkpoint on the Hub, or the name of its folder."""
    return Path(checkpoint).resolve().name if Path(checkpoint).is_dir() else checkpoint


def appearance(asker: Asker) -> dict[str, Any]:
    """What Gradio takes at the launch, not in the page; nothing of it is fetched from the internet."""
    small = asker.processor.image_processor.size.get("shortest_edge") or asker.model.config.image_size
    theme = load_gradio().themes.Base(primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["monospace"])
    # Gradio would keep the pictures and texts of its visitors in their browsers.
    return {"run_history": False, "theme": theme, "css": CSS + (PIXELATED_CSS if small < PIXELATED_BELOW else "")}


def build_page(asker: Asker, name: str, examples: Sequence[Example] = ()) -> Any:
    """The page, a `gradio.Blocks`; launch it with [`appearance`].

    Args:
        asker: the models.
        name: of the checkpoint, for the heading.
        examples: images with texts, to click on; the page opens with the first.
    """
    gr = load_gradio()
    image, text = examples[0] if examples else (None, None)
    with gr.Blocks(title=f"PuMer: {name}", analytics_enabled=False) as page:
        gr.Markdown(f"# PuMer: {name}\n\n{introduction(asker)}")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                picture = gr.Image(
                    image, type="filepath", image_mode=None, format="png", label="Image", height=280,
                    sources=["upload", "clipboard"], elem_id="image",
                )  # fmt: skip
                question = gr.Textbox(text, label=text_label(asker), max_lines=3, elem_id="text")
                button = gr.Button("Ask", variant="primary", elem_id="ask")
                clicked = _show_examples(gr, examples, [picture, question])
            with gr.Column(scale=3, min_width=480):
                with gr.Row():
                    own = gr.Label(label="Reduced model", num_top_classes=TOP, elem_id="answers")
                    full = gr.Label(label="Unreduced model", num_top_classes=TOP, elem_id="full_answers")
                speed = gr.Markdown(HINT, elem_id="speed")
                with gr.Row():
                    compare = gr.Radio(asker.comparisons, value=asker.comparisons[-1], label="Compare with", scale=3)
                    batch = gr.Radio(
                        sorted(asker.batch_sizes), value=asker.batch_sizes[-1], label="Time a batch of", scale=2
                    )
                sliders = [
                    gr.Slider(0, MAX_RATIO, value, step=STEP, label=f"{title(field)} ratio", elem_id=field)
                    for field, value in slider_values(asker.schedule).items()
                ]
        layers = gr.Image(
            label="Layers", show_label=False, format="png", interactive=False, buttons=["download", "fullscreen"],
            elem_id="layers",
        )  # fmt: skip
        schedule = gr.Markdown(elem_id="schedule")
        gflops = gr.State()
        inputs = [picture, question, compare, batch, *sliders]
        _connect(gr, page, Handlers(asker), inputs, [own, full, layers, schedule, speed, gflops], button, clicked)
    return page


def _show_examples(gr: Any, examples: Sequence[Example], inputs: list) -> list[Any]:
    """A table of examples, if any; returns how to add to what a click on them does."""
    if not examples:
        return []
    rows = [list(example) for example in examples]
    shown = gr.Examples(rows, inputs, cache_examples=False, examples_per_page=3, elem_id="examples")
    return [shown.load_input_event.then]


def _connect(
    gr: Any, page: Any, handlers: "Handlers", inputs: list, outputs: list, button: Any, clicked: list[Any]
) -> None:
    """Answer on every change; then time, in a second step that the answer does not wait for."""
    question, settings = inputs[1], inputs[2:]
    speed, gflops = outputs[-2:]
    common = {"trigger_mode": "always_last", "concurrency_limit": 1}
    answer = {"fn": handlers.answer, "inputs": inputs, "outputs": outputs, "show_progress": "minimal"}
    answer |= {"concurrency_id": "answer", **common}
    triggers = [page.load, button.click, question.submit, *(one.change for one in settings)]
    for answered in [gr.on(triggers, api_name="ask", **answer), *(then(api_name=False, **answer) for then in clicked)]:
        times = {"inputs": [gflops, *inputs], "outputs": speed, "show_progress": "hidden", "api_name": False}
        answered.success(handlers.time, concurrency_id="time", **times, **common)


class Handlers:
    """What happens on the page; takes the values of its controls and returns those of its displays."""

    def __init__(self, asker: Asker):
        self.asker = asker

    def answer(
        self, image: ImageSource | None, text: str | None, compare: str, batch_size: int, *values: float
    ) -> tuple[Any, ...]:
        """Answers of both models, the picture, the schedule, and the costs that need no measuring.

        What is wrong with the image or the text is a `gradio.Error`, which the page shows.
        """
        if image is None or not (text or "").strip():
            return None, None, None, "", HINT, None
        try:
            reply = self.asker.ask(image, str(text), self.schedule(values), compare)
        except ValueError as error:
            message = str(error).replace(str(image), Path(str(image)).name)  # visitors need not know where it lies
            raise load_gradio().Error(message) from error
        gflops = (reply.gflops, reply.full_gflops)
        return reply.answers, reply.full_answers, reply.picture, self.layers(values), costs(gflops), gflops

    def time(
        self,
        gflops: Gflops | None,
        image: ImageSource | None,
        text: str | None,
        compare: str,
        batch_size: int,
        *values: float,
    ) -> str:
        """The costs, `gflops` from [`answer`], with measured times."""
        if gflops is None or image is None or not (text or "").strip():
            return HINT
        times = self.asker.measure(image, str(text), self.schedule(values), compare, batch_size)
        return costs(gflops, times) if times is not None else costs(gflops, pending=INTERRUPTED)

    def schedule(self, values: Sequence[float]) -> dict[str, Any]:
        """The schedule that the sliders ask for."""
        start = self.asker.schedule
        return moved(start, dict(zip(start.ratios, values, strict=True)))

    def layers(self, values: Sequence[float]) -> str:
        """The schedule in words."""
        schedule = type(self.asker.schedule)(**{k: v for k, v in self.schedule(values).items() if k != "method"})
        parts = (f"layer {layer}: {in_words(schedule, layer)}" for layer in schedule.layers)
        return f"Schedule: {'; '.join(parts)}"


def introduction(asker: Asker) -> str:
    """What the page shows, in two sentences."""
    method = METHODS[asker.schedule.method]
    *others, last = (str(layer) for layer in asker.schedule.layers)
    layers = f"layers {', '.join(others)} and {last}" if others else f"layer {last}"
    return (
        f"This model has layers that {method.summary} ({method.paper}): {layers} of its "
        f"{asker.model.config.num_reducible_layers}, counted from 0. The sliders set how much, as the mean over these "
        f"layers, each at most {MAX_RATIO}; they start at the model's own schedule."
    )


def text_label(asker: Asker) -> str:
    """What the text is to the model."""
    return "Hypothesis" if type(asker.model).__name__.endswith("ForVisualEntailment") else "Question"


def costs(gflops: Gflops, times: Times | None = None, pending: str = "measuring ...") -> str:
    """A table of what both models cost; without `times` it says `pending` in their place."""
    head = "time" if times is None else f"time for a batch of {times.batch_size}"
    seconds = (None, None) if times is None else (times.seconds, times.full_seconds)
    lines = [f"| model | GFLOPs of one example | {head} |", "|---|---|---|"]
    for name, own, taken in zip(("reduced", "unreduced"), gflops, seconds, strict=True):
        if own is not None:
            lines.append(f"| {name} | {own:.3g} | {pending if taken is None else f'{1000 * taken:.3g} ms'} |")
    if times is not None:
        ratio = None if times.full_seconds is None else times.full_seconds / times.seconds
        faster = "" if ratio is None else f"**{ratio:.2f} times as fast as the unreduced model.** "
        lines += ["", f"{faster}Medians of {times.runs} forward passes after {WARMUP} to warm up, on this machine."]
    return "\n".join(lines)
