"""The displays of the page as HTML: answers, pictures of the layers, what each layer did. All texts are escaped."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

from PIL import Image as PILImage

from ..explain.drawing import swatch
from ..explain.panels import Panel, looks_in
from ..explain.pictures import LEGEND
from ..unread import shortened
from .asker import Reply
from .examples import Example
from .schedules import in_words, part_of

LONGEST = 120
"""How many characters of the text stand above the answers."""
TOP = 5
"""How many answers are shown."""
SWATCH = 72
"""How many pixels each side of an example in the legend has. The page shows it at half of that."""
THUMBNAIL = 80
"""How many pixels each side of a small picture has at most."""


def message_view(message: str, problem: bool = False) -> str:
    """Return a sentence to show in place of answers. Screen readers announce a problem at once."""
    look, role = ("problem", "alert") if problem else ("hint", "status")
    return f'<p class="{look}" role="{role}">{escape(message)}</p>'


def answers_view(text: str, reply: Reply, add_up: bool) -> str:
    """Return what was not read, and a card of answers for each model.

    Args:
        text: the text that was asked.
        reply: the answers of the models.
        add_up: whether the scores of all answers sum to one.
    """
    notes = "".join(f'<p class="problem" role="status">{escape(note)}</p>' for note in reply.notes)
    cards = [_card("Reduced model", reply.answers, add_up)]
    if reply.full_answers is not None:
        cards.append(_card("Unreduced model", reply.full_answers, add_up))
    kind = (
        "Probabilities: those of all classes are 100 % together."
        if add_up
        else "Each score is between 0 and 1 and says how right the model finds that answer by itself: together they "
        "may be more or less than 1."
    )
    asked = escape(shortened(text.strip(), LONGEST))
    return (
        f'{notes}<p class="asked">Answers to “{asked}”</p><div class="cards">{"".join(cards)}</div>'
        f'<p class="small">{kind}</p>'
    )


def _card(title: str, answers: dict[str, float], add_up: bool) -> str:
    rows = []
    for name, score in list(answers.items())[:TOP]:
        value = f"{100 * score:.1f} %" if add_up else f"{score:.2f}"
        rows.append(
            f'<li><span class="name">{escape(name)}</span> <span class="score">{value}</span>'
            f'<span class="bar" aria-hidden="true"><span style="width: {100 * score:.1f}%"></span></span></li>'
        )
    return f'<section class="card"><h3>{title}</h3><ol>{"".join(rows)}</ol></section>'


def layers_view(reply: Reply) -> str:
    """Return what each layer left of the image: the legend, the pictures, and a link to save them."""
    return panels_view("What each layer keeps of the image", LEGEND, reply.panels, reply.picture, "layers.png")


def panels_view(
    heading: str, legend: Mapping[str, str], panels: Sequence[Panel], picture: PILImage.Image, name: str
) -> str:
    """Return the legend, the pictures, and a link to save them. On a narrow page the pictures are below each other.

    Args:
        heading: what stands above them.
        legend: what the looks of a patch mean. Those that are in no picture are left out.
        panels: the pictures with their captions.
        picture: all of them as one picture.
        name: the name of the file in which it is saved.
    """
    figures = "".join(_figure(panel) for panel in panels)
    lines = "".join(
        f'<li><img class="swatch" src="{data_url(swatch(look, SWATCH))}" alt="">{escape(line)}</li>'
        for look, line in looks_in(panels, legend).items()
    )
    return (
        f'<h2>{escape(heading)}</h2><ul class="legend">{lines}</ul><div class="panels">{figures}</div>'
        f'<p><a download="{name}" href="{data_url(picture)}">Save these pictures as one ({name})</a></p>'
    )


def _figure(panel: Panel) -> str:
    title, *lines = (escape(line) for line in panel.caption)
    more = "".join(f"<br>{line}" for line in lines)
    return (
        f'<figure><img src="{data_url(panel.picture)}" alt="{escape(panel.alt)}" width="{panel.picture.width}" '
        f'height="{panel.picture.height}"><figcaption><b>{title}</b>{more}</figcaption></figure>'
    )


def examples_view(examples: Sequence[Example]) -> str:
    """Return a button for each example."""
    buttons = []
    for index, (image, text) in enumerate(examples):
        small = image.copy()
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        buttons.append(
            f'<button type="button" data-index="{index}"><img src="{data_url(small)}" alt=""> '
            f"<span>{escape(text)}</span></button>"
        )
    return f'<h2>Examples</h2><div class="examples">{"".join(buttons)}</div>'


def data_url(picture: PILImage.Image) -> str:
    """Return a picture as a URL that contains it."""
    buffer = io.BytesIO()
    picture.save(buffer, format="png", compress_level=3)  # a photograph is nearly as small, in half of the time
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def steps_view(reply: Reply) -> str:
    """Return the ratios of each layer, and what the layer did."""
    steps = "".join(
        f"<li><b>{one.place[0].upper()}{one.place[1:]}</b> "
        f"(asked for: {in_words(part_of(reply.schedule, one.site, one.layer), one.layer)}). {one.sentences()}</li>"
        for one in reply.counts
    )
    return (
        f'<h2>What each layer does</h2><ul class="steps">{steps}</ul>'
        '<p class="small">A layer removes whole tokens, so it comes as near to its ratio as they allow; and it merges '
        "away at most half of the tokens that it has not pruned. Padding of the text counts as tokens, and leaves "
        "first.</p>"
    )
