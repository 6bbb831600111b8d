"""The displays of the page for decoders as HTML: both answers, and what was kept of the image. Texts are escaped."""

from html import escape

from ..explain.decoder_pictures import DECODER_LEGEND
from ..figures import duration
from ..unread import shortened
from .decoder_asker import DecoderReply, Said
from .views import LONGEST, panels_view

UNFINISHED = "unfinished"
"""The style of sentences that say that an answer is still coming."""
READING = f'<p class="hint {UNFINISHED}" role="status">The model reads the image ...</p>'
STOPPED = f"() => {{ for (const one of document.querySelectorAll('.{UNFINISHED}')) one.textContent = 'Stopped.'; }}"
"""JavaScript that says at once that no more of an answer comes."""


def said_view(text: str, reply: DecoderReply, compare: bool) -> str:
    """Return what was not seen, and a card for the answer of each model, as far as they have got.

    Args:
        text: the question.
        reply: the answers so far.
        compare: whether the unreduced model answers too.
    """
    notes = "".join(f'<p class="problem" role="status">{escape(note)}</p>' for note in reply.notes)
    cards = [said_card(f"With fewer image tokens ({reply.method})", reply.reduced)]
    if compare:
        cards.append(said_card("Unreduced", reply.full))
    asked = escape(shortened(text.strip(), LONGEST))
    return (
        f'{notes}<p class="asked">Answers to “{asked}”</p><div class="cards">{"".join(cards)}</div>'
        f"{faster_view(reply)}"
    )


def said_card(title: str, said: Said | None) -> str:
    """Return a card with what a model has said so far; None if it has not begun."""
    text = "" if said is None else said.text.strip()
    head = f'<section class="card"><h3>{escape(title)}</h3><p class="said">{escape(text)}</p>'
    if said is None:
        return f'{head}<p class="small {UNFINISHED}">It waits for its turn.</p></section>'
    if said.answer is None:
        return f'{head}<p class="small {UNFINISHED}">It is answering ...</p></section>'
    answer = said.answer
    words = "token" if answer.new_tokens == 1 else "tokens"
    rows = {
        "image tokens": answer.kept.removesuffix(" image tokens"),
        "until the first token": duration(answer.first_token),
        "whole answer": f"{duration(answer.seconds)}, {answer.new_tokens} {words}",
    }
    facts = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows.items())
    return f'{head}<dl class="facts">{facts}</dl></section>'


def faster_view(reply: DecoderReply) -> str:
    """Return a sentence that compares the times until the first token, when both answers are complete."""
    if reply.reduced.answer is None or reply.full is None or reply.full.answer is None:
        return ""
    times = reply.full.answer.first_token / reply.reduced.answer.first_token
    return (
        f'<p class="small">The first token comes {times:.2f} times as fast as unreduced, in one run of each on this '
        "machine. In small models, the reduction may take longer than it saves.</p>"
    )


def kept_view(reply: DecoderReply) -> str:
    """Return the pictures of what was kept of the image, with the legend; or why there are none."""
    heading = "What the model keeps of the image"
    if reply.not_drawn:
        return f'<h2>{heading}</h2><p class="small">{escape(reply.not_drawn)}</p>'
    return panels_view(heading, DECODER_LEGEND, reply.panels, reply.picture, "kept.png") if reply.panels else ""
