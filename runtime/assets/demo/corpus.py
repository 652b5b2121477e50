"""The text that the demo model learns from, written by these scripts and by nothing else.

Documents of four kinds, all drawn from a seed: stories (`stories.py`), chats of questions and
answers (`questions.py`), scenes of facts to look up (`bindings.py`) and lists of sums. Every draw
is a combination (who, where, what; which fact in which phrasing), and a checksum of the combination
decides once and for all whether it belongs to training or is held out, so that what is measured was
never seen.
"""

import json
import random
import sys

from bindings import NAMES, ask_all, lesson, scene
from phrases import an
from questions import QUESTIONS, TOLD, question, sum_held_out
from stories import LEADS, LONG_MEMORY, story

END_OF_TEXT, USER, ASSISTANT, SYSTEM, END = "<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"
SPECIAL = [END_OF_TEXT, USER, ASSISTANT, SYSTEM, END]

GREETINGS = [
    (["Hello!", "Hello", "Hi!", "Hi", "Good morning!", "Hi there!"], ["Hello! What would you like to know?", "Hi! Ask me a question or ask me for a story."]),
    (["Who are you?", "What are you?", "What is your name?"], ["I am a very small model. I tell short stories and answer simple questions."]),
    (["What can you do?", "Can you help me?"], ["I can tell a short story, answer simple questions and add small numbers."]),
    (["How are you?", "How are you today?"], ["I am fine, thank you. What would you like to know?"]),
    (["Thank you!", "Thanks!", "Thank you very much."], ["You are welcome!"]),
    (["Goodbye!", "Bye!", "Good night!"], ["Goodbye! It was nice to talk to you."]),
]
ASK_STORY = ["Tell me a story.", "Please tell me a story.", "Can you tell me a story?", "I want to hear a story.", "Write a short story."]
ASK_STORY_ABOUT = ["Tell me a story about {}.", "Please tell me a story about {}.", "Can you tell me a story about {}?", "Write a short story about {}."]
SYSTEM_PROMPTS = ["You are a helpful assistant.", "You answer simple questions.", "You are a small and friendly model.", "Answer in one short sentence."]


def chat_turn(r):
    """One (user, assistant) pair of the training text."""
    x = r.random()
    if x < 0.07:
        asks, answers = r.choice(GREETINGS)
        return r.choice(asks), r.choice(answers)
    if x < 0.11:
        if r.random() < 0.4:
            return r.choice(ASK_STORY), story(r, False)[0]
        name = r.choice(sorted(LEADS))
        text, w = story(r, False, name=name)
        return r.choice(ASK_STORY_ABOUT).format(name if r.random() < 0.6 else f"{an(w.noun)} named {name}"), text
    kinds = list(QUESTIONS)
    kind = r.choices(kinds, [QUESTIONS[k][1] for k in kinds])[0]
    ask, answer, _ = question(r, False, kind)
    if r.random() < 0.1:
        ask = ask.rstrip("?.") if r.random() < 0.5 or ask.split()[0] in NAMES else ask[0].lower() + ask[1:]
    return ask, answer


def chat(r):
    text = SYSTEM + r.choice(SYSTEM_PROMPTS) + END if r.random() < 0.1 else ""
    for _ in range(r.choice([1, 2, 3, 4, 5])):
        ask, answer = chat_turn(r)
        text += USER + ask + END + ASSISTANT + answer + END
    return text


# Types with many facts of their own get more turns when only questions are practised.
PRACTICE = {"colour": 4, "home": 3, "sound": 2, "opposite": 7, "next": 9, "sum": 8, "difference": 6, "who_has": 4, "has_what": 4, "where_is": 4,
            "bigger": 5, "bigger_number": 5, "count": 7, "kind": 4}


# The last drill: what is known or worked out, and sums most of all.
DRILL = {kind: weight for kind, weight in PRACTICE.items() if kind not in TOLD} | {"sum": 18, "sound": 4}


def chat_of(turns):
    return "".join(USER + ask + END + ASSISTANT + answer + END for ask, answer in turns)


def some_questions(r, weights, count):
    return [question(r, False, kind)[:2] for kind in r.choices(list(weights), list(weights.values()), k=count)]


def practice(r):
    """A chat of questions only: half of them about facts that are told once and asked about again."""
    if r.random() < 0.5:
        told, turns = ask_all(r)
        turns[0] = f"{told} {turns[0][0]}", turns[0][1]
        more, after = ask_all(r)
        turns += [(f"{more} {after[0][0]}", after[0][1])] + after[1:]
    else:
        turns = some_questions(r, PRACTICE, 6)
    return chat_of(turns)


def drill(r):
    return chat_of(some_questions(r, DRILL, 6))


def rehearsal(r):
    """Questions, and the stories that need the longest memory."""
    return practice(r) if r.random() < 0.5 else story(r, False, plots=LONG_MEMORY)[0]


def sums(r):
    lines = []
    while len(lines) < 6:
        a, b = r.randrange(11), r.randrange(11)
        if r.random() < 0.5:
            if not sum_held_out(a, b):
                lines.append(f"{a} + {b} = {a + b}")
        else:
            lines.append(f"{max(a, b)} - {min(a, b)} = {max(a, b) - min(a, b)}")
    return "\n".join(lines)


def training_document(r):
    x = r.random()
    return story(r, False)[0] if x < 0.60 else chat(r) if x < 0.96 else sums(r)


def training_documents(seed, count):
    """`count` documents, each without its end-of-text mark."""
    r = random.Random(seed)
    return [training_document(r) for _ in range(count)]


def held_out_stories(seed, count):
    """Stories whose (name, place, toy) occurs in no training story."""
    r = random.Random(seed)
    return [story(r, True)[0] for _ in range(count)]


def held_out_questions(seed, per_kind):
    r = random.Random(seed)
    rows = []
    for kind in QUESTIONS:
        seen = {}
        for _ in range(4000):
            ask, answer, key = question(r, True, kind)
            seen.setdefault(ask, dict(type=kind, question=ask, answer=answer, key=key))
            if len(seen) == per_kind:
                break
        rows += seen.values()
    return rows


if __name__ == "__main__":
    for text in training_documents(int(sys.argv[1]) if len(sys.argv) > 1 else 0, 12):
        print(text, "\n")
    for row in held_out_questions(1, 3):
        print(json.dumps(row))
