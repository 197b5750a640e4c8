"""Generates questions and answer spans (SQuAD's columns) from article introductions, by rules.

Each rule takes one sentence and asks for a part of it: for a year, a number, a name in the subject's place, what something
is, where, or by whom. No model and no other data set is involved.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

SENTENCE = re.compile(r"[^.!?]+(?:\.(?=\w)[^.!?]+)*[.!?](?=\s|$)")
NAME = r"[A-Z][\w'’-]*(?: (?:of |the |de |von |van )?[A-Z][\w'’-]*)*"
BE = r"(?:is|are|was|were)"
NUMBER_WORDS = "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundreds|thousands|millions"
MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
LONGEST_QUESTION = 160
"""Characters; a longer one is no question that anybody would ask."""
PER_TEXT = 3
"""Questions of one text at most."""

Made = tuple[str, str]
"""A question, and the answer as it stands in the sentence."""


def _subject(sentence: str) -> Iterator[Made]:
    found = re.match(rf"((?:The )?{NAME}) ({BE}|has|had|won|became|wrote|led|founded) (.+)[.]$", sentence)
    if found and len(found[1].split()) <= 6 and found[1] not in ("It", "This", "He", "She", "They", "These"):
        word = (
            "Who"
            if re.search(r"\bborn\b|\bhe\b|\bshe\b|\bactor|player|politician|singer|writer|king", sentence)
            else "What"
        )
        yield f"{word} {found[2]} {found[3]}?", found[1]


def _definition(sentence: str) -> Iterator[Made]:
    found = re.match(rf"((?:The )?{NAME})(?: \([^)]*\)|,[^,.]*,)? ({BE}) ((?:an?|the) [^,.;()]+)", sentence)
    if found and found[2] in ("is", "was") and found[1] not in ("It", "This", "He", "She"):
        yield f"What {found[2]} {_lower(found[1])}?", found[3].split(" that ")[0].split(" which ")[0]


def _year(sentence: str) -> Iterator[Made]:
    for found in re.finditer(
        rf"(?:in|on|since|until|from) ((?:(?:{MONTHS}) )?(?:\d{{1,2}}, )?[12]\d{{3}})\b", sentence
    ):
        rest = _without(sentence, found)
        moved = re.match(rf"(.{{3,60}}?) ({BE}) (.+)", rest)
        if moved:
            yield f"When {moved[2]} {_lower(moved[1])} {moved[3]}?", found[1]
        else:
            yield f"In what year {_lower(rest)}?", found[1]


def _born(sentence: str) -> Iterator[Made]:
    found = re.match(rf"({NAME})[^()]*\([^()]*?born ([^();]*?\d{{4}})", sentence)
    if found:
        yield f"When was {found[1]} born?", found[2]


def _count(sentence: str) -> Iterator[Made]:
    for found in re.finditer(rf"\b(\d[\d,.]*\d|\d|{NUMBER_WORDS}) ((?:[a-z]+ ){{0,2}}[a-z]+s)\b", sentence):
        before, after = sentence[: found.start()].strip(), sentence[found.end() :].strip(" .")
        if before and len(found[2]) > 3:
            yield f"How many {found[2]} {_lower(before)} {after}".strip() + "?", found[1]


def _place(sentence: str) -> Iterator[Made]:
    found = re.search(
        rf"^(.{{3,60}}?) ({BE}) (?:[^.,]*?)\b(located|situated|born|based|held|found) "
        rf"(?:in|at|on) ((?:the )?{NAME}(?:, {NAME})?)",
        sentence,
    )
    if found:
        yield f"Where {found[2]} {_lower(found[1])} {found[3]}?", found[4]


def _agent(sentence: str) -> Iterator[Made]:
    found = re.search(
        rf"^(.{{3,60}}?) ({BE}) ([^.,]*?)\b(\w+ed|written|won|led|made|built|sung) by ((?:the )?{NAME})", sentence
    )
    if found:
        yield f"Who {found[4]} {_lower(found[1])}?", found[5]


def _cloze(sentence: str) -> Iterator[Made]:
    """A name inside the sentence, asked for by the words around it."""
    for found in re.finditer(rf"(?<=[a-z] )(?:the )?({NAME})", sentence):
        word = "Who" if re.search(r"\bby $|\bwith $", sentence[: found.start()]) else "What"
        around = (sentence[max(0, found.start() - 60) : found.start()], sentence[found.end() : found.end() + 60])
        left, right = around[0].split(" ", 1)[-1], around[1].rsplit(" ", 1)[0] if len(around[1]) == 60 else around[1]
        yield f"{word} {left.strip()} {right.strip(' .')}?".replace("  ", " "), found[1]


RULES: tuple[Callable[[str], Iterator[Made]], ...] = (
    _born, _year, _count, _place, _agent, _subject, _definition, _cloze,
)  # fmt: skip


def _lower(text: str) -> str:
    """A beginning of a sentence as it reads in its middle."""
    first, _, rest = text.partition(" ")
    small = (
        first.lower()
        if first in ("The", "A", "An", "It", "He", "She", "They", "In", "This", "Its", "His", "Her")
        else first
    )
    return f"{small} {rest}".strip()


def _without(sentence: str, found: re.Match[str]) -> str:
    left, right = sentence[: found.start()].strip(" ,"), sentence[found.end() :].strip(" .,")
    return f"{left} {right}".strip()


def ask(context: str) -> list[dict[str, Any]]:
    """All questions that the rules find in a text, with answers as SQuAD has them."""
    rows = []
    for sentence in SENTENCE.finditer(context):
        text = sentence[0].strip()
        offset = context.index(text, sentence.start())
        for rule in RULES:
            for question, answer in rule(text):
                place = text.find(answer)
                if place < 0 or len(question) > LONGEST_QUESTION or len(question.split()) < 3:
                    continue
                answers = {"text": [answer], "answer_start": [offset + place]}
                rows.append(
                    {"question": question, "context": context, "answers": answers, "rule": rule.__name__.strip("_")}
                )
    return rows


def ask_all(contexts: Iterable[str], *, seed: int) -> list[dict[str, Any]]:
    """At most PER_TEXT questions of each text, of as many rules as there are, drawn from the seed."""
    random = np.random.default_rng(seed)
    chosen = []
    for context in contexts:
        rows = ask(context)
        order = random.permutation(len(rows))
        taken: dict[str, dict[str, Any]] = {}
        for place in order:
            taken.setdefault(rows[place]["rule"], rows[place])
        by_chance = [taken[name] for name in random.permutation(sorted(taken)).tolist()]
        chosen += by_chance[:PER_TEXT]
    return chosen
