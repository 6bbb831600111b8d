"""The page to try an encoder model, made with Gradio."""

from collections.abc import Sequence
from typing import Any

from ..figures import duration, figure
from ..images import DataError, ImageSource
from ..inputs import image_side
from ..reducers import ReductionConfig, Schedule, reducer_class
from .asker import WARMUP, Asker, Times
from .examples import Example
from .looks import PIXELATED_BELOW
from .parts import (
    ASK,
    HINT,
    image_input,
    load_gradio,
    readable,
    show_examples,
    showing,
    themed,
    unchanged,
    unreadable_view,
)
from .schedules import (
    FASTEST,
    STEP,
    can_be_scaled,
    moved,
    slider_limits,
    slider_start,
    slider_values,
    title,
    values_at,
)
from .views import answers_view, layers_view, message_view, steps_view

Costs = dict[str, Any]
"""The facts of an answer, for the page and for callers of its API: `answers`, `full_answers`, `notes`, `gflops`,
`full_gflops`, and `removed`, the number of tokens that the layers removed."""
Shown = tuple[str, str, str, str, Costs | None, Costs | None]
"""The displays that an answer changes: answers, pictures, what each layer did, costs, and twice its facts: for the
page, and for the API."""
INTERRUPTED = "not measured, as another question came first: press Ask"
PLACES = {"tower": "in the image tower", "inputs": "before the first layer", "layers": "the mean over the layers"}
"""What the labels of the sliders say about the site."""


def appearance(asker: Asker) -> dict[str, Any]:
    """Return the arguments for the look of the page, which Gradio takes at the launch."""
    return themed(pixelated=image_side(asker.processor) < PIXELATED_BELOW)


def build_page(asker: Asker, name: str, examples: Sequence[Example] = ()) -> Any:
    """Build the page, a `gradio.Blocks`. Launch it with [`appearance`].

    Args:
        asker: the models.
        name: the name of the checkpoint, for the heading.
        examples: images with texts, to click on. At the start, the page shows the first one.
    """
    gr = load_gradio()
    image, text = examples[0] if examples else (None, None)
    with gr.Blocks(title=f"PuMer: {name}", analytics_enabled=False) as page:
        gr.Markdown(f"# PuMer: {name}\n\n{introduction(asker)}")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                picture = image_input(gr, image)
                question = gr.Textbox(text, label=asker.text_label, max_lines=3, elem_id="text")
                button = gr.Button("Ask", variant="primary", elem_id="ask")
                picked = show_examples(gr, examples, [picture, question])
            with gr.Column(scale=3, min_width=480):
                answers = gr.HTML(message_view(HINT), padding=False, elem_id="answers")
                layers = gr.HTML(padding=False, elem_id="layers")
                speed = gr.Markdown(elem_id="speed")
                faster = _speed_slider(gr, asker.schedule)
                settings = _show_settings(gr, asker)
                steps = gr.HTML(padding=False, elem_id="steps")
        known, scores = gr.State(), gr.JSON(visible=False)  # the same facts: for the page, and for callers of its API
        # For what is no number, our sentence appears once. Gradio would show an error in each part of the page.
        for slider in settings[2:]:
            slider.preprocess = unchanged
        outputs = [answers, layers, steps, speed, known, scores]
        handlers = Handlers(asker)
        _connect(gr, page, handlers, [picture, question, *settings], outputs, button, picked)
        if faster is not None:
            faster.input(handlers.speed, faster, settings[2:], show_progress="hidden", api_name=False)
    return page


def _show_settings(gr: Any, asker: Asker) -> list[Any]:
    """Show what to compare with, what to time, and a slider for each ratio. Return these controls."""
    with gr.Row():
        compare = gr.Radio(asker.comparisons, value=asker.comparisons[-1], label="Compare with", scale=3)
        batch = gr.Radio(sorted(asker.batch_sizes), value=asker.batch_sizes[-1], label="Time a batch of", scale=2)
    return [compare, batch, *(slider for part in asker.schedule.parts for slider in _sliders(gr, part))]


def _speed_slider(gr: Any, schedule: Schedule) -> Any:
    """Make the slider that moves those of all ratios. It is None if a part of the schedule has no ratio."""
    if not can_be_scaled(schedule):
        return None
    label = "Speed: 0 reduces nothing, 1 is the model's own schedule"
    slider = gr.Slider(0, FASTEST, 1, step=0.05, label=label, elem_id="faster")
    slider.preprocess = unchanged
    return slider


def _sliders(gr: Any, part: ReductionConfig) -> list[Any]:
    """Make the sliders of one part of a schedule."""
    limits = slider_limits(part)
    return [
        gr.Slider(
            slider_start(field),
            limits[field],
            value,
            step=STEP,
            label=f"{title(field)} ratio, {PLACES[part.site]}",
            elem_id=field if part.site == "layers" else f"{part.site}_{field}",
        )
        for field, value in slider_values(part).items()
    ]


def _connect(
    gr: Any, page: Any, handlers: "Handlers", inputs: list[Any], outputs: list[Any], button: Any, picked: Any
) -> None:
    """Connect the controls to the handlers.

    Each change gives a new answer. The times follow in a second step, so the answer does not wait for them. A new
    picture clears the answer about the old one, and stops what is still being computed.
    """
    picture, question, *settings = inputs
    answers, speed, known = outputs[0], outputs[3], outputs[4]
    common = {"trigger_mode": "always_last", "concurrency_limit": 1}
    answer = {"fn": handlers.answer, "inputs": inputs, "outputs": outputs, "show_progress_on": answers}
    answer |= {"concurrency_id": "answer", **common}
    triggers = [page.load, button.click, question.submit, *(one.change for one in settings)]
    answering = [gr.on(triggers, api_name="ask", **answer)]
    if picked is not None:
        answering.append(picked.then(api_name=False, **answer))
    timing = []
    for event in answering:
        times = {"inputs": [known, *inputs], "outputs": speed, "show_progress": "hidden", "api_name": False}
        timing.append(event.success(handlers.time, concurrency_id="time", **times, **common))
    for on_event, message in ((picture.upload, ASK), (picture.clear, HINT)):
        on_event(None, outputs=outputs[:4], js=showing(nothing(message)[:4]), cancels=[*answering, *timing])
    checked = {"inputs": picture, "outputs": answers, "show_progress": "hidden", "api_name": False}
    picture.upload(handlers.check, concurrency_id="check", **checked)


class Handlers:
    """The handlers of the page. They take the values of its controls, and return those of its displays."""

    def __init__(self, asker: Asker):
        self.asker = asker

    def answer(
        self, image: ImageSource | None, text: str | None, compare: str, batch_size: int, *values: Any
    ) -> Shown:
        """Return the answers of both models, the pictures, what each layer did, and the costs without times.

        If the image, the text or a slider is wrong, a sentence says so in place of the answers.
        """
        if image is None or not (text or "").strip():
            return nothing(HINT)
        try:
            reply = self.asker.ask(image, str(text), self.schedule(values), compare)
        except DataError as error:
            return (unreadable_view(image, error), *nothing("")[1:])
        except ValueError as error:
            return nothing(str(error), problem=True)
        answers = answers_view(str(text), reply, self.asker.scores_add_up)
        known = {
            "answers": reply.answers,
            "full_answers": reply.full_answers,
            "notes": reply.notes,
            "gflops": reply.gflops,
            "full_gflops": reply.full_gflops,
            "removed": sum(one.removed for one in reply.counts),
        }
        return answers, layers_view(reply), steps_view(reply), costs(known), known, known

    def speed(self, value: Any) -> list[float] | float:
        """Return where the slider of speed puts those of the ratios. What is no number counts as 1."""
        try:
            values = values_at(self.asker.schedule, value)
        except ValueError:
            values = values_at(self.asker.schedule, 1)
        return values if len(values) > 1 else values[0]

    def check(self, image: ImageSource | None) -> Any:
        """Say why a new image cannot be read. If it can be read, change nothing."""
        return readable(image)

    def time(
        self,
        known: Costs | None,
        image: ImageSource | None,
        text: str | None,
        compare: str,
        batch_size: int,
        *values: Any,
    ) -> str:
        """Return the costs with measured times; [`answer`] returned `known`."""
        if known is None or image is None or not (text or "").strip():
            return ""
        times = self.asker.measure(image, str(text), self.schedule(values), compare, batch_size)
        return costs(known, times) if times is not None else costs(known, pending=INTERRUPTED)

    def schedule(self, values: Sequence[Any]) -> Schedule:
        """Return the schedule of the sliders, which stand in the order of its parts and of their ratios."""
        parts, rest = [], list(values)
        for part in self.asker.schedule.parts:
            names = list(slider_values(part))
            parts.append(moved(part, dict(zip(names, rest[: len(names)], strict=True))))
            del rest[: len(names)]
        return Schedule(tuple(parts))


def nothing(message: str, problem: bool = False) -> Shown:
    """Return the displays without an answer: a sentence alone."""
    return message_view(message, problem), "", "", "", None, None


def introduction(asker: Asker) -> str:
    """Return a sentence about each part of the model's schedule, and one about the sliders."""
    first, *others = (part_words(part, asker) for part in asker.schedule.parts)
    sentences = [f"This model has {first}.", *(f"It also has {words}." for words in others)]
    return (
        f"{' '.join(sentences)} The slider of speed moves all others, which set how much is reduced. They start at "
        "the model's own schedule, and end where a layer can do no more."
    )


def part_words(part: ReductionConfig, asker: Asker) -> str:
    """Say what a part of the model's schedule does, and where, after "This model has"."""
    method = reducer_class(part)
    what = f"{method.summary} ({method.paper})"
    if part.site == "inputs":
        return f"a step before its first layer, to {what}"
    *others, last = (str(layer) for layer in part.layers) if part.layers else ("all",)
    layers = f"layers {', '.join(others)} and {last}" if others else f"layer {last}"
    if part.site == "tower":
        return f"layers in its image tower that {what}: {layers if part.layers else 'all of them'}"
    return f"layers that {what}: {layers} of its {asker.model.config.num_reducible_layers}, counted from 0"


def costs(known: Costs, times: Times | None = None, pending: str = "being measured ...") -> str:
    """Return a table of what both models cost. Without `times`, a line says that they are `pending`."""
    head = "" if times is None else f" time for a batch of {times.batch_size} |"
    lines = [f"| model | GFLOPs of one example |{head}", f"|---|---|{'---|' if head else ''}"]
    seconds = (None, None) if times is None else (times.seconds, times.full_seconds)
    gflops = (known["gflops"], known["full_gflops"])
    for name, count, taken in zip(("reduced", "unreduced"), gflops, seconds, strict=True):
        if count is not None:
            lines.append(f"| {name} | {figure(count)} |{'' if taken is None else f' {duration(taken)} |'}")
    lines.append("")
    if gflops[1] is not None and not known["removed"] and gflops[0] != gflops[1]:
        lines.append(
            f"No token is removed. The reduced model costs {gflops[0] - gflops[1]:.2g} GFLOPs more, as it still works "
            "out which tokens it would remove. "
        )
    if times is None:
        lines.append(f"The time is {pending}" if pending.endswith(".") else f"The time is {pending}.")
        return "\n".join(lines)
    if times.full_seconds is not None:
        lines.append(f"**{times.full_seconds / times.seconds:.2f} times as fast as the unreduced model.** ")
    lines.append(f"Medians of {times.runs} forward passes after {WARMUP} to warm up, on this machine.")
    return "\n".join(lines)
