"""The page to try a decoder model, made with Gradio."""

from collections.abc import Iterator, Sequence
from typing import Any

from ..images import DataError, ImageSource
from ..reducers import reducer_class
from .decoder_asker import AS_SAVED, DecoderAsker, DecoderReply, Question, Said
from .decoder_views import READING, STOPPED, kept_view, said_view
from .examples import Example, knows_scene_words
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
from .schedules import STEP
from .views import message_view

Facts = dict[str, Any]
"""What is known of an answer, for callers of the API of the page: `method`, `notes`, and for `reduced` and `full` the
fields of [`fact_of`]; None for a model that has not answered."""
Shown = tuple[Any, Any, Facts | None]
"""The displays that an answer changes: answers, pictures, and facts for the API."""
MOST_TOKENS, USUAL_TOKENS = 512, 64


def decoder_appearance(asker: DecoderAsker) -> dict[str, Any]:
    """Return the arguments for the look of the page, which Gradio takes at the launch."""
    return themed(pixelated=knows_scene_words(asker.processor))  # a model of digit scenes sees few pixels


def build_decoder_page(asker: DecoderAsker, name: str, examples: Sequence[Example] = ()) -> Any:
    """Build the page, a `gradio.Blocks`. Launch it with [`decoder_appearance`].

    Args:
        asker: the model.
        name: the name of the checkpoint, for the heading.
        examples: images with questions, to click on. At the start, the page shows the first one.
    """
    gr = load_gradio()
    image, text = examples[0] if examples else (None, None)
    with gr.Blocks(title=f"PuMer: {name}", analytics_enabled=False) as page:
        gr.Markdown(f"# PuMer: {name}\n\n{decoder_introduction(asker)}")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                picture = image_input(gr, image)
                question = gr.Textbox(text, label="Question", max_lines=3, elem_id="text")
                with gr.Row():
                    button = gr.Button("Ask", variant="primary", elem_id="ask")
                    stop = gr.Button("Stop", elem_id="stop")
                picked = show_examples(gr, examples, [picture, question])
            with gr.Column(scale=3, min_width=480):
                answers = gr.HTML(message_view(HINT), padding=False, elem_id="answers")
                kept = gr.HTML(padding=False, elem_id="layers")
                settings = show_decoder_settings(gr, asker)
        facts = gr.JSON(visible=False)  # for callers of the API
        handlers = DecoderHandlers(asker)
        inputs, outputs = [picture, question, *settings], [answers, kept, facts]
        common = {"trigger_mode": "always_last", "concurrency_limit": 1, "concurrency_id": "answer"}
        answer = {"fn": handlers.answer, "inputs": inputs, "outputs": outputs, "show_progress": "hidden", **common}
        triggers = [page.load, button.click, question.submit, *(one.change for one in settings)]
        answering = [gr.on(triggers, api_name="ask", **answer)]
        if picked is not None:
            answering.append(picked.then(api_name=False, **answer))
        stop.click(None, js=STOPPED, cancels=answering)
        for on_event, message in ((picture.upload, ASK), (picture.clear, HINT)):
            blank = showing([message_view(message), ""])
            on_event(None, outputs=outputs[:2], js=blank, cancels=answering)
        checked = {"inputs": picture, "outputs": answers, "show_progress": "hidden", "api_name": False}
        picture.upload(readable, concurrency_id="check", **checked)
    return page


PLACES = {"inputs": "before the decoder", "layers": "inside the decoder"}
"""Where a part of a schedule works, in words, by its site."""


def show_decoder_settings(gr: Any, asker: DecoderAsker) -> list[Any]:
    """Show the method, the part to keep, whether to compare, and the longest answer. Return these controls."""
    info = f"“{AS_SAVED}” has an amount of its own" if AS_SAVED in asker.methods else None
    with gr.Row():
        method = gr.Dropdown(asker.methods, value=asker.methods[0], label="Method", info=info, elem_id="method")
        compare = gr.Checkbox(True, label="Let the unreduced model answer too", elem_id="compare")
    with gr.Row():
        ratio = gr.Slider(
            STEP,
            1.0,
            asker.keep_ratio,
            step=STEP,
            label="Part of tokens to keep",
            elem_id="keep_ratio",
        )
        longest = gr.Slider(1, MOST_TOKENS, USUAL_TOKENS, step=1, label="Most tokens of an answer", elem_id="tokens")
    for slider in (ratio, longest):  # our sentence for what is no number appears once
        slider.preprocess = unchanged
    return [method, ratio, compare, longest]


def decoder_introduction(asker: DecoderAsker) -> str:
    """Return what the page is about, and what the model's own schedule does."""
    methods = [(part, reducer_class(part)) for part in asker.saved.parts]
    does = "; ".join(f"{PLACES[part.site]} to {method.summary} ({method.paper})" for part, method in methods)
    return (
        f"A {asker.model.family.title} whose image tokens are reduced. Its own schedule: {does}. It answers twice, "
        "one after the other: with fewer image tokens, and with all of them."
    )


class DecoderHandlers:
    """The handlers of the page. They take the values of its controls, and return those of its displays."""

    def __init__(self, asker: DecoderAsker):
        self.asker = asker

    def answer(
        self, image: ImageSource | None, text: str | None, method: str, ratio: Any, compare: bool, longest: Any
    ) -> Iterator[Shown]:
        """Yield the answers as they grow, with the pictures when they are there.

        If the image, the question or a setting is wrong, a sentence says so in place of the answers.
        """
        if image is None or not (text or "").strip():
            yield message_view(HINT), "", None
            return
        yield READING, "", None
        try:
            question = self.question(image, str(text), method, ratio, compare, longest)
            unchanged_picture, panels = load_gradio().skip(), None
            for reply in self.asker.ask(question):
                kept = unchanged_picture if reply.panels is panels else kept_view(reply)
                panels = reply.panels
                yield said_view(str(text), reply, compare), kept, facts_of(reply)
        except DataError as error:
            yield unreadable_view(image, error), "", None
        except ValueError as error:
            yield message_view(str(error), problem=True), "", None

    def question(
        self, image: ImageSource, text: str, method: str, ratio: Any, compare: bool, longest: Any
    ) -> Question:
        """Return the question that the values of the controls are.

        Raises:
            ValueError: a value is wrong; the message names it.
        """
        if isinstance(longest, bool) or not isinstance(longest, int) or not 1 <= longest <= MOST_TOKENS:
            raise ValueError(f"most tokens={longest}: must be an integer in [1, {MOST_TOKENS}]")
        return Question(image, text, self.asker.schedule(method, ratio), compare, longest)


def facts_of(reply: DecoderReply) -> Facts:
    """Return what is known of an answer so far."""
    return {
        "method": reply.method,
        "notes": list(reply.notes),
        "reduced": fact_of(reply.reduced),
        "full": None if reply.full is None else fact_of(reply.full),
    }


def fact_of(said: Said) -> dict[str, Any]:
    """Return what a model has said: `text`; and, when it is complete, its tokens and seconds."""
    if said.answer is None:
        return {"text": said.text}
    names = ("image_tokens", "all_image_tokens", "new_tokens", "first_token", "seconds")
    return {"text": said.text, **{name: getattr(said.answer, name) for name in names}}
