"""Texts that say who has what and what is where, and then say it again in another order.

Nothing of it can be known beforehand: the answer must be looked up in the text itself. Stories
teach this slowly, as most of them name one thing of a kind; here there are always several.
"""

from phrases import an, cap, held_out
from stories import BOYS, COLOURS, GIRLS, RELATIVES, TOYS

NAMES = GIRLS + BOYS
SPOTS = ["under the table", "on the sofa", "in the garden", "behind the door", "next to the tree", "in the box", "on the roof", "under the bed", "in the kitchen", "on the bridge"]
PETS = "cat dog mouse frog bird fox rabbit duck pig sheep".split()


def owners(r, count, with_held_out=False):
    """`count` pairs (name, thing), no name or thing twice. With `with_held_out` the first one is held out; no other ever is."""
    return pairs(r, "has", NAMES, TOYS, count, with_held_out)


def places(r, count, with_held_out=False):
    """`count` pairs (animal, spot), likewise."""
    return pairs(r, "where", PETS, SPOTS, count, with_held_out)


def pairs(r, what, left, right, count, with_held_out):
    while True:
        drawn = list(zip(r.sample(left, count), r.sample(right, count)))
        if [held_out(what, *pair) for pair in drawn] == [with_held_out] + [False] * (count - 1):
            return drawn


def who_has(facts, at=0):
    who, toy = facts[at]
    return [f"Who has the {toy}?", f"Tell me who has the {toy}.", f"Do you know who has the {toy}?"], f"{who} has the {toy}."


def has_what(facts, at=0):
    who, toy = facts[at]
    return [f"What does {who} have?", f"Tell me what {who} has.", f"Which thing does {who} have?"], f"{who} has the {toy}."


def where_is(facts, at=0):
    pet, spot = facts[at]
    return [f"Where is the {pet}?", f"Tell me where the {pet} is.", f"Do you know where the {pet} is?"], f"The {pet} is {spot}."


def statements(r, facts):
    """All of them, in any order."""
    say = "{} has the {}." if facts[0][0] in NAMES else "The {} is {}."
    return " ".join(say.format(*fact) for fact in r.sample(facts, len(facts)))


def ask_all(r):
    """(facts, questions with answers about them): each asked once or twice, in any order."""
    count = r.choice([2, 2, 3])
    if r.random() < 0.65:
        facts, kinds = owners(r, count), (who_has, has_what)
    else:
        facts, kinds = places(r, 2), (where_is,)
    turns = []
    for _ in range(r.randrange(2, 5)):
        ask, answer = r.choice(kinds)(facts, r.randrange(len(facts)))
        turns.append((r.choice(ask), answer))
    return statements(r, facts), turns


AGAIN_OWNER = ["{a} has the {t}.", "{a} has the {t}.", "Who has the {t}? {a} has the {t}.", "What does {a} have? {a} has the {t}.", "{a} likes the {t}."]
AGAIN_PLACE = ["The {a} is {t}.", "The {a} is {t}.", "Where is the {a}? The {a} is {t}.", "{c} is the {a}."]
AGAIN_COLOUR = ["{a} plays with the {c} {t}.", "The {c} {t} is new.", "{a} likes the {c} {t}.", '"Where is my {t}?" asked {a}. There was the {c} {t}!', "{a} found the {c} {t}.", "{a} took the {c} {t} home.", "The {t} is {c}."]
AGAIN_RELATIVE = ["{a} asked {h} {t}.", "{a} ran to {h} {t}.", '"Hello, {a}," said {h} {t}.', "{c} {t} was proud of {a}.", "{a} went home to {h} {t}."]


def again_and_again(r, facts, lines, count):
    return [r.choice(lines).format(**r.choice(facts)) for _ in range(count)]


LINKS = ["{a} {b}.", "{a}: {b}.", "{b} {a}.", "{a} has the {b}.", "{a} and the {b}.", "the {b} of {a}.", "{b}: {a}."]


def register(r):
    """Pairs, all of them again and again in another order: what came with what?"""
    count = r.randrange(2, 7)
    facts = owners(r, count) if r.random() < 0.8 else places(r, count)
    link = r.choice(LINKS)
    return " ".join(link.format(a=a, b=b) for _ in range(max(3, 16 // count)) for a, b in r.sample(facts, count))


def lesson(r):
    return register(r) if r.random() < 0.6 else scene(r)


def scene(r):
    """Several facts of one kind, then many sentences that each need one of them."""
    count, more = r.choice([2, 2, 3, 4]), r.randrange(5, 11)
    style = r.randrange(4)
    if style == 0:
        facts = owners(r, count)
        out = [statements(r, facts)] + again_and_again(r, [dict(a=a, t=t) for a, t in facts], AGAIN_OWNER, more)
    elif style == 1:
        facts = places(r, count)
        out = [statements(r, facts)] + again_and_again(r, [dict(a=a, t=t, c=cap(t)) for a, t in facts], AGAIN_PLACE, more)
    elif style == 2:
        facts = [dict(a=a, t=t, c=r.choice(COLOURS)) for a, t in owners(r, count)]
        out = [f"{f['a']} has {an(f['c'] + ' ' + f['t'])}." for f in facts] + again_and_again(r, facts, AGAIN_COLOUR, more)
    else:
        names = r.sample(NAMES, count)
        facts = [dict(a=a, t=t, h="her" if a in GIRLS else "his", c="Her" if a in GIRLS else "His") for a, t in zip(names, r.sample(RELATIVES, count))]
        out = [f"{f['a']} lives with {f['h']} {f['t']}." for f in facts] + again_and_again(r, facts, AGAIN_RELATIVE, more)
    return " ".join(out)
