"""The scores of generated answers, as each public set defines them. A score is in [0, 1]."""

import re
import string
from collections.abc import Callable, Sequence

from pumer_hf.metrics.vqa_accuracy import vqa_score

NO_MARKS = str.maketrans("", "", string.punctuation)
TOLERANCE = 0.05
"""The largest relative error of a number that ChartQA counts as right."""
SIMILAR = 0.5
"""The least similarity of an answer that DocVQA counts."""
ARTICLE_WORDS = 3
"""In an answer of more words than this, a bare "A" is an article."""
LETTER = re.compile(r"(?<![A-Za-z0-9'])([A-E])(?![A-Za-z0-9'])")
Score = Callable[[str, Sequence[str]], float]
"""Takes a generated answer and the right ones, and returns the score of the first."""


def vqa(text: str, answers: Sequence[str]) -> float:
    """Return the official VQA accuracy, as the challenges since 2021 count it ([`vqa_score`])."""
    return vqa_score(text, answers)


def exact(text: str, answers: Sequence[str]) -> float:
    """Return 1 if the answer is one of the right ones. Case, punctuation and blanks around it do not matter."""
    return float(plain(text) in map(plain, answers))


def yes_no(text: str, answers: Sequence[str]) -> float:
    """Return 1 if the first word of the answer is the right one of "yes" and "no". Punctuation does not matter."""
    words = plain(text).split()
    return float(words[:1] == plain(answers[0]).split()[:1])


def relaxed(text: str, answers: Sequence[str]) -> float:
    """Return 1 if the answer is right as ChartQA counts it.

    A number may be off by 5 % of the right one. "14%" is the number 0.14. All else has to be equal, apart from case.
    """
    return float(any(is_close(text.strip(), answer.strip()) for answer in answers))


def is_close(text: str, answer: str) -> bool:
    """Return whether an answer of ChartQA counts as another one."""
    number, right = number_of(text), number_of(answer)
    if number is None or not right:  # nothing is within 5 % of 0
        return text.lower() == answer.lower()
    return abs(number - right) <= TOLERANCE * abs(right)


def number_of(text: str) -> float | None:
    """Return the number that a text is; None if it is none."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def letter(text: str, answers: Sequence[str]) -> float:
    """Return 1 if the answer names the right option.

    It does if the only letter of an option in it is the right one: "B", "(B)", "B. a cat" or "The answer is B.".
    Without such a letter, it has to be the text of the option.

    Args:
        text: the answer.
        answers: the letter of the right option, and its text.
    """
    right, *texts = answers
    whole = text.strip()
    found = set(LETTER.findall(whole))
    if "A" in found and len(whole.split()) > ARTICLE_WORDS and not re.search(r"(^|\()A[.,:)]|\bA[.:)]?$", whole):
        found.remove("A")
    return float(found == {right}) if found else exact(whole, texts)


def anls(text: str, answers: Sequence[str]) -> float:
    """Return the average normalised Levenshtein similarity of DocVQA: that to the most similar of the right answers.

    A similarity below one half counts as 0.
    """
    best = max(similarity(text, answer) for answer in answers)
    return best if best >= SIMILAR else 0.0


def similarity(text: str, answer: str) -> float:
    """Return 1 less the part of two texts that has to be edited to make them equal. Case and blanks do not matter."""
    one, two = (" ".join(words.lower().split()) for words in (text, answer))
    longest = max(len(one), len(two))
    return 1 - edits(one, two) / longest if longest else 1.0


def edits(one: str, two: str) -> int:
    """Return how many letters have to be put in, taken out or replaced to make two texts equal."""
    before = list(range(len(two) + 1))
    for row, mine in enumerate(one, start=1):
        now = [row]
        for column, other in enumerate(two):
            now.append(min(before[column + 1] + 1, now[column] + 1, before[column] + (mine != other)))
        before = now
    return before[-1]


def plain(text: str) -> str:
    """Return a text in lower case, without punctuation and without blanks around it."""
    return text.lower().translate(NO_MARKS).strip()


SCORES: dict[str, Score] = {
    "vqa": vqa,
    "exact": exact,
    "yes_no": yes_no,
    "relaxed": relaxed,
    "letter": letter,
    "anls": anls,
}
"""The scores by name."""
TITLES = {
    "vqa": "VQA accuracy over the annotators",
    "exact": "exact match",
    "yes_no": "accuracy of yes or no",
    "relaxed": "relaxed accuracy (5 %)",
    "letter": "accuracy of the option",
    "anls": "ANLS",
}
"""What the tables call the scores."""
