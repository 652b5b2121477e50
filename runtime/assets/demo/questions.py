"""Questions with one right answer, each type with several phrasings.

A type yields (phrasings, answer, the part of the answer that must be there, what was asked about);
`question` decides by the last of these whether the draw belongs to training or is held out.
"""

import bindings
from bindings import NAMES
from phrases import an, cap, held_out

THING_COLOURS = {
    "the sky": "blue", "the sun": "yellow", "the grass": "green", "the snow": "white", "the night": "black", "the sea": "blue",
    "a banana": "yellow", "a lemon": "yellow", "a tomato": "red", "a strawberry": "red", "a carrot": "orange", "an orange": "orange",
    "a pumpkin": "orange", "a leaf": "green", "a frog": "green", "a cucumber": "green", "a pea": "green", "a swan": "white",
    "a sheep": "white", "a bear": "brown", "a pig": "pink", "a crow": "black", "a plum": "purple", "a grape": "purple",
    "an elephant": "grey", "a mouse": "grey", "a potato": "brown", "a cloud": "white", "a cherry": "red", "a fox": "orange",
}
HOMES = {
    "fish": "in the water", "bird": "in a nest", "cow": "on a farm", "bee": "in a hive", "bear": "in a cave", "fox": "in the forest",
    "whale": "in the sea", "dog": "in a house", "horse": "in a barn", "lion": "in the wild", "camel": "in the desert", "frog": "near a pond",
    "monkey": "in the trees", "rabbit": "in a hole", "spider": "in a web", "penguin": "on the ice", "owl": "in an old tree", "pig": "on a farm",
    "duck": "on a lake", "deer": "in the forest", "shark": "in the sea", "cat": "in a house",
}
SOUNDS = {"cow": "moo", "dog": "woof", "cat": "meow", "duck": "quack", "sheep": "baa", "pig": "oink", "bee": "buzz", "owl": "hoot",
          "lion": "roar", "mouse": "squeak", "snake": "hiss", "horse": "neigh", "crow": "caw", "frog": "croak"}
OPPOSITES = [p.split("-") for p in ("hot-cold big-small up-down day-night happy-sad fast-slow open-closed full-empty wet-dry hard-soft tall-short "
             "old-young good-bad light-dark long-short left-right new-old early-late loud-quiet clean-dirty strong-weak high-low near-far "
             "black-white first-last in-out yes-no rich-poor thick-thin sweet-sour").split()]
OPPOSITE = {}
for left, right in OPPOSITES:
    OPPOSITE.setdefault(left, right)
    OPPOSITE.setdefault(right, left)
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
KINDS = {"apple": "fruit", "pear": "fruit", "banana": "fruit", "cherry": "fruit", "plum": "fruit", "lemon": "fruit", "carrot": "vegetable",
         "potato": "vegetable", "onion": "vegetable", "pea": "vegetable", "dog": "animal", "cat": "animal", "horse": "animal", "lion": "animal",
         "rabbit": "animal", "cow": "animal", "hammer": "tool", "saw": "tool", "spade": "tool", "rose": "flower", "tulip": "flower",
         "daisy": "flower", "ball": "toy", "doll": "toy", "kite": "toy", "red": "colour", "blue": "colour", "green": "colour",
         "chair": "piece of furniture", "table": "piece of furniture", "bed": "piece of furniture", "shirt": "piece of clothing", "coat": "piece of clothing", "sock": "piece of clothing"}
SIZES = "ant bee mouse frog cat dog sheep cow horse elephant whale".split()
COUNTED = ["apples", "balls", "cookies", "books", "pears", "shells", "stones", "eggs"]


def q_colour(r):
    x, c = r.choice(list(THING_COLOURS.items()))
    q = [f"What colour is {x}?", f"Which colour is {x}?", f"What is the colour of {x}?", f"Tell me the colour of {x}.",
         f"Do you know what colour {x} is?", f"What color is {x}?", f"Can you tell me what colour {x} is?"]
    return q, f"{cap(x)} is {c}.", c, (x,)


def q_home(r):
    x, h = r.choice(list(HOMES.items()))
    q = [f"Where does {an(x)} live?", f"Where do you find {an(x)}?", f"Tell me where {an(x)} lives.", f"Do you know where {an(x)} lives?",
         f"In what place does {an(x)} live?", f"Can you tell me where {an(x)} lives?"]
    return q, f"{cap(an(x))} lives {h}.", h, (x,)


def q_sound(r):
    x, s = r.choice(list(SOUNDS.items()))
    q = [f"What does {an(x)} say?", f"What sound does {an(x)} make?", f"Which sound does {an(x)} make?", f"Tell me what {an(x)} says.",
         f"How does {an(x)} sound?", f"Do you know what {an(x)} says?"]
    return q, f"{cap(an(x))} says {s}.", s, (x,)


def q_opposite(r):
    x, y = r.choice(list(OPPOSITE.items()))
    q = [f"What is the opposite of {x}?", f"Tell me the opposite of {x}.", f"Which word is the opposite of {x}?", f"What is the opposite word of {x}?",
         f"Do you know the opposite of {x}?", f"Can you tell me the opposite of {x}?"]
    return q, f"The opposite of {x} is {y}.", y, (x,)


def q_next(r):
    kind = r.randrange(4)
    if kind < 2:
        n = r.randrange(1, 60)
        x, y = (n, n + 1) if kind == 0 else (n, n - 1)
        what = "number"
    else:
        what, ring = r.choice([("day", DAYS), ("month", MONTHS)])
        i = r.randrange(len(ring))
        x, y = ring[i], ring[(i + (1 if kind == 2 else -1)) % len(ring)]
    side = "after" if kind % 2 == 0 else "before"
    q = [f"What comes {side} {x}?", f"Which {what} comes {side} {x}?", f"What {what} comes {side} {x}?", f"Tell me what comes {side} {x}.",
         f"Which {what} is right {side} {x}?", f"Do you know what comes {side} {x}?"]
    return q, f"{cap(side)} {x} comes {y}." if side == "after" else f"Before {x} comes {y}.", str(y), (side, x)


def q_sum(r):
    a, b = r.randrange(11), r.randrange(11)
    q = [f"What is {a} + {b}?", f"What is {a} plus {b}?", f"How much is {a} + {b}?", f"How much is {a} plus {b}?", f"Add {a} and {b}.", f"{a} + {b} = ?"]
    return q, f"{a} + {b} = {a + b}.", str(a + b), (a, b)


def sum_held_out(a, b):
    """A pair is held out in one order only: the mirrored sum is in the training text."""
    return a != b and held_out("sum", min(a, b), max(a, b), one_in=5) and (a < b) == held_out("order", a + b, a * b, one_in=2)


def q_difference(r):
    a = r.randrange(11)
    b = r.randrange(a + 1)
    q = [f"What is {a} - {b}?", f"What is {a} minus {b}?", f"How much is {a} - {b}?", f"How much is {a} minus {b}?", f"Take {b} away from {a}.", f"{a} - {b} = ?"]
    return q, f"{a} - {b} = {a - b}.", str(a - b), (a, b)


def q_bigger(r):
    i, j = sorted(r.sample(range(len(SIZES)), 2))
    small, big = SIZES[i], SIZES[j]
    a, b = (small, big) if r.random() < 0.5 else (big, small)
    word, answer = r.choice([("bigger", big), ("smaller", small)])
    q = [f"Which is {word}, {an(a)} or {an(b)}?", f"What is {word}, {an(a)} or {an(b)}?", f"Is {an(a)} or {an(b)} {word}?", f"Tell me which is {word}, {an(a)} or {an(b)}."]
    other = small if answer == big else big
    return q, f"{cap(an(answer))} is {word} than {an(other)}.", f"{cap(an(answer))} is {word}", (word, a, b)


def q_bigger_number(r):
    a, b = r.sample(range(31), 2)
    q = [f"Which number is bigger, {a} or {b}?", f"Which is bigger, {a} or {b}?", f"Is {a} or {b} bigger?", f"Tell me which number is bigger, {a} or {b}."]
    return q, f"{max(a, b)} is bigger than {min(a, b)}.", f"{max(a, b)} is bigger", (a, b)


def q_count(r):
    a, b = r.sample(NAMES, 2)
    x, y, thing = r.randrange(1, 10), r.randrange(1, 10), r.choice(COUNTED)
    give = r.random() < 0.5
    if give:
        total = x + y
        act = f"{b} gives {a} {y} more."
    else:
        x, y = max(x, y) + 1, min(x, y)
        total = x - y
        act = f"{a} gives {y} to {b}."
    counted = lambda n: f"{n} {thing if n != 1 else thing[:-1]}"
    q = [f"{a} has {counted(x)}. {act} How many {thing} does {a} have now?", f"{a} has {counted(x)}. {act} Tell me how many {thing} {a} has now."]
    return q, f"{a} has {counted(total)} now.", f"{a} has {counted(total)}", (give, x, y, thing)


def q_kind(r):
    x, k = r.choice(list(KINDS.items()))
    named = x if k == "colour" else an(x)
    q = [f"What is {named}?", f"What kind of thing is {named}?", f"Tell me what {named} is.", f"Do you know what {named} is?", f"Can you tell me what {named} is?"]
    return q, f"{cap(named)} is {an(k)}.", k, (x,)


# type: (its draw, weight among the questions of a chat)
QUESTIONS = {
    "colour": (q_colour, 3), "home": (q_home, 3), "sound": (q_sound, 2), "opposite": (q_opposite, 3), "next": (q_next, 5), "sum": (q_sum, 6),
    "difference": (q_difference, 5), "who_has": (bindings.who_has, 5), "has_what": (bindings.has_what, 4), "where_is": (bindings.where_is, 4),
    "bigger": (q_bigger, 4), "bigger_number": (q_bigger_number, 3), "count": (q_count, 5), "kind": (q_kind, 3),
}
# What is held out: the arguments themselves where an answer can be worked out, else a fact in one phrasing.
BY_ARGUMENTS = {"bigger", "bigger_number", "count"}
# About facts that the question tells: how to draw them, and how many. A held-out pair is in no training text at all.
TOLD = {"who_has": (bindings.owners, [2, 2, 3]), "has_what": (bindings.owners, [2, 2, 3]), "where_is": (bindings.places, [2])}


def question(r, want_held_out, kind):
    """(question, answer, key): the key is the part of the answer that must be there."""
    if kind in TOLD:
        draw, counts = TOLD[kind]
        facts = draw(r, r.choice(counts), want_held_out)
        phrasings, answer = QUESTIONS[kind][0](facts)
        return f"{bindings.statements(r, facts)} {r.choice(phrasings)}", answer, answer.rstrip(".")
    while True:
        phrasings, answer, key, args = QUESTIONS[kind][0](r)
        i = r.randrange(len(phrasings))
        if kind == "sum":
            held = sum_held_out(*args)
        elif kind in BY_ARGUMENTS:
            held = held_out(kind, *args) or (kind == "count" and args[0] and sum_held_out(*args[1:3]))
        else:
            held = held_out(kind, *args, i, one_in=6)
        if held == want_held_out:
            return phrasings[i], answer, key
