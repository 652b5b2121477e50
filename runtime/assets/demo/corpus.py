"""The text that the demo model learns from, written by this script and by nothing else.

Three kinds of document, all drawn from a seed: short stories with a plot, chats of questions and
answers, and lists of small sums. Every draw is a combination (who, where, what; which fact in
which phrasing), and a checksum of the combination decides once and for all whether it belongs to
training or is held out, so that what is measured was never seen.
"""

import json
import random
import sys
import zlib

END_OF_TEXT, USER, ASSISTANT, SYSTEM, END = "<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"
SPECIAL = [END_OF_TEXT, USER, ASSISTANT, SYSTEM, END]


def held_out(*combination, one_in=10):
    return zlib.crc32("|".join(map(str, combination)).encode()) % one_in == 0


def an(phrase):
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def cap(text):
    return text[0].upper() + text[1:]


# ---------------------------------------------------------------------------- stories

GIRLS = "Lily Mia Anna Rosa Emma Lucy Nora Ella Zoe Ruby Ivy Clara Maya Sara Alice Jane Daisy Kate Amy Bella Eva Grace Hannah Julia Laura Lena Molly Nina Olive Sophie".split()
BOYS = "Tom Ben Max Sam Leo Jack Finn Tim Oscar Adam Noah Paul Henry Luke Peter Felix Hugo Will Alex Carl Daniel Eric George Ian James Mark Nick Owen Robin Theo".split()
ANIMALS = "fox rabbit bear mouse squirrel duck puppy kitten hedgehog frog owl pony badger lamb turtle mole penguin".split()
GOOD = "kind brave clever cheerful curious gentle little young friendly quiet happy playful shy funny lazy proud hungry helpful".split()
COLOURS = "red blue green yellow white brown orange pink purple black".split()
TOYS = "ball kite doll drum boat book hat scarf basket lantern umbrella blanket cup bell balloon bucket whistle ring puzzle rope robot trumpet spoon mirror pencil shell flute".split()
FOODS = ["apple", "pear", "cake", "sandwich", "pie", "cookie", "orange", "bun", "pancake", "muffin", "peach", "melon"]
WEATHER = ["sunny", "warm", "bright", "cold", "windy", "cloudy", "quiet", "lovely"]
TIMES = ["morning", "afternoon", "day", "evening"]
# place: (how one is there, hiding spots there, a thing to do there)
PLACES = {
    "park": ("in the park", ["under a bench", "behind a tall tree", "near the swings"], "run on the grass"),
    "beach": ("at the beach", ["behind a big rock", "in the wet sand", "under a towel"], "dig in the sand"),
    "forest": ("in the forest", ["under some leaves", "behind an old tree", "in a small hole"], "listen to the birds"),
    "garden": ("in the garden", ["behind the roses", "under a bush", "next to the old wall"], "smell the flowers"),
    "farm": ("on the farm", ["in the hay", "behind the barn", "next to the gate"], "watch the cows"),
    "market": ("at the market", ["under a table", "behind a big box", "between two baskets"], "look at the fruit"),
    "lake": ("at the lake", ["in the tall grass", "under a little bridge", "behind a stone"], "throw stones into the water"),
    "hill": ("on the hill", ["behind a stone", "in the tall grass", "under a bush"], "roll down the grass"),
    "library": ("in the library", ["under a chair", "behind the books", "on the top shelf"], "read about the stars"),
    "school": ("at school", ["under a desk", "behind the door", "in a dark corner"], "paint pictures"),
    "village": ("in the village", ["next to the well", "behind the bakery", "under a cart"], "talk to the baker"),
    "meadow": ("in the meadow", ["under a big leaf", "in the tall grass", "between the flowers"], "chase the butterflies"),
    "river": ("by the river", ["behind a stone", "under a little bridge", "in the mud"], "watch the fish"),
    "castle": ("in the old castle", ["behind a heavy door", "under the stairs", "in a dark corner"], "climb the stairs"),
}
TO_PLACE = {name: "to " + ("school" if name == "school" else "the " + how.split("the ")[-1]) for name, (how, _, _) in PLACES.items()}
SKILLS = [
    ("swim", "swam", "swimming", "in the lake", "sank like a stone"),
    ("ride a bike", "rode a bike", "riding a bike", "down the road", "fell into a bush"),
    ("whistle", "whistled", "whistling", "in the yard", "made no sound at all"),
    ("climb", "climbed", "climbing", "up the tallest tree", "slid back down"),
    ("dance", "danced", "dancing", "in front of everyone", "fell over"),
    ("skate", "skated", "skating", "across the ice", "sat down hard on the ice"),
    ("bake bread", "baked bread", "baking bread", "in the kitchen", "burned the bread"),
    ("paint", "painted", "painting", "at the big table", "spilled the paint"),
    ("juggle", "juggled", "juggling", "with three balls", "dropped every ball"),
    ("sing", "sang", "singing", "on the stage", "forgot the words"),
]
SEEDS = [("carrot", "carrots"), ("pumpkin", "pumpkins"), ("tomato", "tomatoes"), ("bean", "beans"), ("strawberry", "strawberries"), ("sunflower", "sunflowers")]
HELPLESS = [
    ("a small bird", "in a net", "cut the net with care", "flew up into the sky"),
    ("a tiny kitten", "in a tall tree", "climbed up with a ladder", "purred softly"),
    ("a baby duck", "in the mud", "pulled it out with both hands", "waddled back to its mother"),
    ("a little lamb", "in a bush full of thorns", "moved the thorns away", "ran back to the other sheep"),
    ("a young deer", "between two rocks", "pushed one rock away", "jumped into the trees"),
    ("a green turtle", "on its back", "turned it over", "walked slowly to the water"),
]
NOISES = [("a tapping sound", "a branch that tapped on the window"), ("a scratching sound", "a mouse that was looking for crumbs"),
          ("a loud bang", "a door that moved in the wind"), ("a soft crying sound", "a kitten that was cold and hungry"),
          ("a strange hooting sound", "an owl that sat on the roof"), ("a rattling sound", "an empty can that rolled down the road")]
RULES = [
    ("touch the hot stove", "touched the hot stove", "It hurt a lot"),
    ("eat all the cookies", "ate all the cookies", "Soon {his} tummy hurt a lot"),
    ("jump in the mud", "jumped in the mud", "Soon everything was wet and dirty"),
    ("open the gate", "opened the gate", "All the chickens ran away"),
    ("play near the well", "played near the well", "{His} shoe fell into the deep water"),
    ("shake the apple tree", "shook the apple tree", "A big apple fell down with a bump"),
]
GIFTS = [("a card", "paper and paint"), ("a necklace", "shells and string"), ("a cake", "flour, eggs and sugar"), ("a small chair", "wood and nails"),
         ("a warm hat", "soft wool"), ("a puppet", "an old sock and two buttons"), ("a crown", "leaves and flowers")]
ROOMS = ["kitchen", "bedroom", "hall", "living room"]
FRAGILE = ["cup", "vase", "plate", "lamp", "bowl", "clock"]


class Who:
    """A character: name, noun and pronouns."""

    def __init__(self, rng, taken=(), name=None, animal=None):
        girl = name in GIRLS if name else rng.random() < 0.5
        self.name = name or rng.choice([n for n in (GIRLS if girl else BOYS) if n not in taken])
        self.he, self.him, self.his = ("she", "her", "her") if girl else ("he", "him", "his")
        self.animal = rng.random() < 0.3 if animal is None else animal
        self.noun = rng.choice(ANIMALS) if self.animal else ("girl" if girl else "boy")
        self.adj = rng.choice(GOOD)
        self.parent = rng.choice(["mother", "father", "grandmother", "grandfather", "aunt", "uncle"])


def opening(r, w, place):
    adj, noun, name, how = w.adj, w.noun, w.name, PLACES[place][0]
    return r.choice([
        f"Once upon a time, there was {an(adj)} {noun} named {name}.",
        f"Once upon a time, there was {an(adj)} {noun}. {cap(w.his)} name was {name}.",
        f"Once upon a time, {an(adj)} {noun} named {name} lived in a small house.",
        f"There was once {an(adj)} {noun} named {name}.",
        f"{name} was {an(adj)} {noun} who loved to play outside.",
        f"{name} was {an(adj)} {noun}. Everyone in town liked {name}.",
        f"Long ago, {an(adj)} {noun} named {name} lived near a big forest.",
    ])


def day(r):
    return r.choice([f"One {r.choice(WEATHER)} {r.choice(TIMES)},", "One day,", f"On {an(r.choice(WEATHER))} {r.choice(TIMES)},", "Then one day,"])


def friend_intro(r, f):
    return r.choice([f"{cap(an(f.noun))} named {f.name}", f"{f.name} the {f.noun}" if f.animal else f"A friend named {f.name}"])


def happy_end(r, w, f=None):
    if f:
        return r.choice([
            f"{w.name} and {f.name} were very happy.", f"From that day on, {w.name} and {f.name} were best friends.",
            f"{w.name} and {f.name} laughed all the way home.", f"{w.name} and {f.name} played until the sun went down.",
            f'"You are a good friend," said {w.name}. {f.name} smiled.'])
    return r.choice([f"{w.name} was very happy.", f"{w.name} went home with a big smile.", f"That night, {w.name} slept very well.",
                     f"{w.name} never forgot that day.", f"{cap(w.his)} {w.parent} was very proud of {w.name}."])


def lost_and_found(r, w, f, place, toy):
    how, spots, fun = PLACES[place]
    thing, spot = f"{r.choice(COLOURS)} {toy}", r.choice(spots)
    wrong = r.choice([s for s in spots if s != spot])
    yield r.choice([f"{w.name} had {an(thing)} and took it everywhere.", f"{w.name} loved {w.his} {thing} more than any other toy.",
                    f"{cap(w.his)} {w.parent} gave {w.name} {an(thing)}."])
    yield r.choice([f"{day(r)} {w.name} went {TO_PLACE[place]} to {fun}.", f"{day(r)} {w.name} took the {thing} {TO_PLACE[place]}."])
    yield r.choice([f"But when it was time to go home, the {thing} was gone.", f"Suddenly {w.he} saw that the {thing} was not there.", f"After a while, {w.name} could not find the {thing}."])
    yield r.choice([f"{w.name} was very sad and began to cry.", f"{cap(w.he)} felt sad.", f'"Oh no! Where is my {toy}?" said {w.name}.'])
    yield r.choice([f'{friend_intro(r, f)} came by and asked, "What is wrong?"', f'{friend_intro(r, f)} heard {w.him} and said, "I will help you."'])
    if r.random() < 0.5:
        yield r.choice([f'"I lost my {thing}," said {w.name}.', f'"I cannot find my {thing}," {w.name} said.'])
    yield r.choice([f"First they looked {wrong}, but it was not there.", f"They looked {wrong}, but they found nothing."])
    yield r.choice([f"Then {f.name} looked {spot} and found the {thing}!", f"Then {f.name} looked {spot}. There was the {thing}!"])
    yield r.choice([f'"Thank you, {f.name}!" said {w.name}.', f"{w.name} gave {f.name} a big hug.", f"{w.name} jumped for joy."])
    yield happy_end(r, w, f)


def sharing(r, w, f, place, toy):
    how, _, fun = PLACES[place]
    food = r.choice(FOODS)
    yield r.choice([f"{day(r)} {w.name} sat {how} with a big {food}.", f"{day(r)} {w.name} went {TO_PLACE[place]} to eat {an(food)}."])
    yield r.choice([f"{friend_intro(r, f)} sat there too and looked at the {food}.", f"{friend_intro(r, f)} came along and looked very hungry."])
    yield r.choice([f'"I have nothing to eat," said {f.name}.', f'"I am so hungry," said {f.name}.', f'"That {food} looks good," said {f.name} in a small voice.'])
    yield r.choice([f"{w.name} thought about it.", f"{w.name} was hungry too.", f"At first, {w.name} wanted to keep it all."])
    yield r.choice([f"Then {w.he} cut the {food} in two and gave half of it to {f.name}.", f'Then {w.he} smiled and said, "We can share it."'])
    yield r.choice([f"They ate the {food} together, and it tasted very good.", f"The {food} was sweet, and they ate every bit of it."])
    yield r.choice([f"Because {w.name} was kind, {f.name} gave {w.him} {an(r.choice(COLOURS) + ' ' + toy)}.",
                    f"After that, they went to {fun} together.", f"{f.name} said thank you three times."])
    yield r.choice([f"{w.name} learned that sharing makes food taste better.", f"{w.name} learned that it is good to share.", happy_end(r, w, f)])


def broken(r, w, f, place, toy):
    room, thing = r.choice(ROOMS), r.choice(FRAGILE)
    yield r.choice([f"{day(r)} it was raining, so {w.name} played in the {room} with {an(toy)}.", f"{day(r)} {w.name} ran around in the {room} with {an(toy)}."])
    yield r.choice([f"The {toy} hit a {thing}, and it fell to the floor.", f"{w.name} did not look, and the {toy} hit a {thing}."])
    yield r.choice([f"Crash! The {thing} broke into many pieces.", f"The {thing} broke."])
    yield r.choice([f"{w.name} was afraid to tell {w.his} {w.parent}.", f"{w.name} wanted to hide the pieces under the bed.", f"{w.name} felt very bad."])
    yield r.choice([f"But {w.he} told the truth.", f"But {w.he} knew that it was better to tell the truth."])
    yield r.choice([f'"I am sorry. I broke the {thing}," {w.he} said.', f'"I broke your {thing}, and I am sorry," said {w.name}.'])
    yield r.choice([f"{cap(w.his)} {w.parent} was not angry.", f'"Thank you for telling me," said {w.his} {w.parent}.'])
    yield r.choice([f"Together they put the {thing} back together with glue.", f"They found some glue and fixed the {thing} together."])
    yield r.choice([f"After that, {w.name} played with the {toy} only outside.", f"{w.name} learned that it is good to tell the truth.", f"From then on, {w.name} was more careful."])


def learning(r, w, f, place, toy):
    do, did, doing, where, fail = r.choice(SKILLS)
    yield r.choice([f"More than anything, {w.name} wanted to learn to {do}.", f"{w.name} wanted to {do}, but {w.he} did not know how.", f"All the others could {do}, but {w.name} could not."])
    yield r.choice([f"{day(r)} {w.he} tried it for the first time and {fail}.", f"The first time, {w.he} {fail}."])
    yield r.choice([f'"I will never learn it," said {w.name}.', f"{w.name} wanted to give up.", f"Everyone laughed, and {w.name} felt sad."])
    yield r.choice([f'{friend_intro(r, f)} said, "Do not give up. Try again."', f'{friend_intro(r, f)} said, "I will show you how."'])
    yield r.choice([f"So {w.name} tried again every day.", f"So every {r.choice(TIMES)} {w.name} and {f.name} worked hard."])
    if r.random() < 0.5:
        yield r.choice(["Some days were good, and some days were bad.", f"Little by little, it became easier.", f"Each day, {w.name} was a little better."])
    yield r.choice([f"After many days, {w.name} {did} {where}.", f"At last, {w.name} {did} {where}, and nothing went wrong."])
    yield r.choice([f'"You did it!" shouted {f.name}.', f"{f.name} clapped and cheered.", f"{w.name} could not believe it."])
    yield r.choice([f"Now {w.name} loves {doing}.", f"{w.name} learned that you should never give up.", happy_end(r, w, f)])


def rescue(r, w, f, place, toy):
    animal, stuck, did, after = r.choice(HELPLESS)
    how, _, fun = PLACES[place]
    short = animal.split(" ", 1)[1]
    yield r.choice([f"{day(r)} {w.name} went {TO_PLACE[place]} to {fun}.", f"{day(r)} {w.name} was {how} with {w.his} {w.parent}."])
    yield r.choice([f"There {w.he} heard a small cry.", f"Then {w.he} heard something cry."])
    yield r.choice([f"It was {animal} that was stuck {stuck}.", f"{cap(animal)} was stuck {stuck}."])
    yield r.choice([f'"Do not be afraid," said {w.name}. "I will help you."', f'"Poor thing!" said {w.name}.', f"{w.name} wanted to help, but {w.he} could not do it alone."])
    yield r.choice([f"{w.name} called {w.his} friend {f.name}.", f"{w.name} ran to get {f.name}, who was strong and calm."])
    yield r.choice([f"Together they {did}.", f"{f.name} {did} while {w.name} spoke softly."])
    yield r.choice([f"The {short} was free, and it {after}.", f"At last the {short} was free. It {after}."])
    yield r.choice([f"The next day, the {short} came back to say hello.", f"{w.name} and {f.name} waved until they could not see it any more.", f"{cap(w.his)} {w.parent} was very proud of them."])
    yield happy_end(r, w, f)


def gift(r, w, f, place, toy):
    thing, stuff = r.choice(GIFTS)
    short = thing.split(" ", 1)[1]
    yield r.choice([f"It was almost the birthday of {w.his} friend {f.name}.", f"{w.name} knew that {f.name} had a birthday soon."])
    yield r.choice([f"{w.name} wanted to give {f.name} {an(r.choice(COLOURS) + ' ' + toy)}, but {w.he} had no money.", f"{w.name} had no money to buy a gift."])
    yield r.choice([f'"I can make something," {w.he} thought.', f'"Make something yourself," said {w.his} {w.parent}.'])
    yield r.choice([f"So {w.name} took {stuff} and made {thing}.", f"So {w.he} found {stuff} and began to make {thing}."])
    yield r.choice([f"It took all {r.choice(['day', 'morning', 'afternoon'])}, but it was fun.", f"It was hard work, but {w.name} did not stop."])
    yield r.choice([f"On the birthday, {w.name} went {TO_PLACE[place]}, where {f.name} had a party.", f"The party was {PLACES[place][0]}, and many friends came."])
    yield r.choice([f"{f.name} opened the gift and saw the {short}.", f'"Happy birthday!" said {w.name} and gave {f.name} the {short}.'])
    yield r.choice([f'"This is the best gift of all," said {f.name}.', f'"Did you make it yourself? I love it!" said {f.name}.'])
    yield happy_end(r, w, f)


def rule(r, w, f, place, toy):
    do, did, then = r.choice(RULES)
    yield r.choice([f'{day(r)} {w.his} {w.parent} said, "{w.name}, please do not {do}."', f'"Do not {do}," {w.his} {w.parent} always said.'])
    yield r.choice([f"But {w.name} did not listen.", f"{w.name} said yes, but soon {w.he} forgot about it.", f"But {w.name} wanted to know what would happen."])
    yield r.choice([f"When nobody was looking, {w.he} {did}.", f"As soon as {w.his} {w.parent} was away, {w.he} {did}."])
    yield then.format(his=w.his, His=cap(w.his)) + "."
    yield r.choice([f"{w.name} began to cry and called for help.", f'"Help!" cried {w.name}.', f'"I should have listened," thought {w.name}.'])
    yield r.choice([f"{cap(w.his)} {w.parent} came and helped {w.him}.", f"{friend_intro(r, f)} heard it and ran to get help."])
    yield r.choice([f'"I am sorry," said {w.name}. "Next time I will listen."', f'"I will not do it again," said {w.name}.'])
    yield r.choice([f"{cap(w.his)} {w.parent} gave {w.him} a hug, and all was well.", f"After that, {w.name} always listened.", f"{cap(w.his)} {w.parent} smiled and gave {w.him} {an(r.choice(FOODS))}."])


def growing(r, w, f, place, toy):
    one, many = r.choice(SEEDS)
    yield r.choice([f"{day(r)} {w.name} found a small seed {PLACES[place][0]}.", f"{day(r)} {friend_intro(r, f).replace('A friend', 'a friend').replace('A ', 'a ').replace('An ', 'an ')} gave {w.name} a small seed."])
    yield r.choice([f'"What will it be?" asked {w.name}.', f"{w.name} did not know what it was."])
    yield r.choice([f"{cap(w.he)} put the seed into the ground behind the house.", f"{cap(w.he)} made a hole and put the seed into it."])
    yield r.choice([f"Every {r.choice(TIMES)} {w.he} gave it water.", f"Each day {w.he} gave it water from {an(r.choice(COLOURS))} bucket."])
    yield r.choice(["For many days, nothing happened.", f"Nothing came up, and {w.name} was sad.", f"{w.name} had to wait a long time."])
    yield r.choice([f'"Be patient," said {w.his} {w.parent}.', f'"It needs sun, water and time," said {w.his} {w.parent}.'])
    yield r.choice(["Then it rained, and the sun came out.", "Then a little green leaf came out of the ground."])
    yield r.choice([f"The plant grew and grew, and soon there were many {many}.", f"By the end of summer, it was full of {many}."])
    yield r.choice([f"{w.name} gave some of the {many} to {f.name}.", f"{w.name} and {f.name} took the {many} home in a basket."])
    yield r.choice([f"{w.name} learned that good things take time.", happy_end(r, w, f)])


def night(r, w, f, place, toy):
    sound, cause = r.choice(NOISES)
    yield r.choice([f"One dark night, {w.name} woke up because of {sound}.", f"One night, {w.name} was in bed when {w.he} heard {sound}."])
    yield r.choice([f'"Is it a monster?" thought {w.name}.', f"{w.name} was afraid and hid under the blanket.", f"{cap(w.his)} heart began to beat fast."])
    yield r.choice([f"{cap(w.he)} woke up {f.name}, who was staying for the night.", f'"{f.name}, did you hear that?" {w.he} asked {w.his} friend.'])
    yield r.choice([f'"Let us look together," said {f.name}.', f'"I am not afraid when you are with me," said {f.name}.'])
    yield r.choice([f"They took {an(r.choice(COLOURS))} lantern and went outside.", "They walked very slowly to the door and opened it."])
    yield r.choice(["The moon was big and white.", "It was cold and very quiet.", "The stars were bright."])
    yield r.choice([f"Then they saw what it was. It was only {cause}!", f"And what did they see? It was {cause}!"])
    yield r.choice(["They laughed and laughed.", f'"That is not a monster at all," said {w.name}.'])
    yield r.choice([f"They went back to bed, and {w.name} was not afraid any more.", f"After that, {w.name} was not afraid of the dark."])


def treasure(r, w, f, place, toy):
    how, spots, fun = PLACES[place]
    spot, thing = r.choice(spots), f"{r.choice(COLOURS)} {toy}"
    yield r.choice([f"{day(r)} {w.name} found an old map in a book.", f"{day(r)} {w.name} found an old map in {w.his} {w.parent}'s house."])
    yield r.choice([f"The map showed the way {TO_PLACE[place]}.", f"There was a big cross on it, and it was {how}."])
    yield r.choice([f'"It is a treasure map!" said {w.his} friend {f.name}.', f"{w.name} showed it to {w.his} friend {f.name}."])
    yield r.choice([f"They took a bag and walked {TO_PLACE[place]}.", f"The next morning, they went {TO_PLACE[place]} together."])
    yield r.choice(["It was a long way, and they were tired.", f"On the way, {f.name} told a funny story.", "They had to cross a small bridge."])
    yield r.choice([f"They looked everywhere. At last they found a box {spot}.", f"They looked {spot}, and there was an old box."])
    yield r.choice(["The box was locked, but the key was under it.", "Slowly they opened the box."])
    yield r.choice([f"In the box there was {an(thing)}.", f"There was no gold in it, but there was {an(thing)}."])
    yield r.choice([f'"We can both play with it," said {w.name}.', f"{w.name} let {f.name} have the {toy} first.", f'"This is better than gold," said {f.name}.'])
    yield happy_end(r, w, f)


def race(r, w, f, place, toy):
    how = PLACES[place][0]
    prize = f"{r.choice(COLOURS)} {toy}"
    yield r.choice([f"{day(r)} there was a race {how}.", f"{day(r)} all the friends met {how} for a race."])
    yield r.choice([f"The prize was {an(prize)}.", f"The first one to reach the old tree would get {an(prize)}."])
    yield r.choice([f"{w.name} was fast, but {f.name} was fast too.", f"{w.name} and {f.name} were the fastest of all."])
    yield r.choice(['"One, two, three, go!"', "They all began to run."])
    yield r.choice([f"{w.name} was first, and {f.name} was close behind {w.him}.", f"Soon {w.name} and {f.name} were far ahead."])
    yield r.choice([f"Then {f.name} fell and hurt {f.his} leg.", f"But {f.name} fell over a stone and could not get up."])
    yield r.choice([f"{w.name} could win now, but {w.he} stopped and went back.", f"{w.name} saw it and stopped at once."])
    yield r.choice([f"{cap(w.he)} helped {f.name} to stand up, and they walked to the end together.", f'"Come, we will go together," said {w.name}.'])
    yield r.choice([f"They were the last ones, but everyone clapped for them.", f"Because {w.name} was so kind, both of them got a prize."])
    yield r.choice([f'"A friend is better than a prize," said {w.name}.', happy_end(r, w, f)])


def picnic(r, w, f, place, toy):
    how, _, fun = PLACES[place]
    food = r.choice(FOODS)
    yield r.choice([f"{w.name} and {w.his} friend {f.name} wanted to have a picnic {how}.", f"{day(r)} {w.name} asked {w.his} friend {f.name} to come to a picnic {how}."])
    toy = "ball" if toy == "blanket" else toy
    cloth = f"{r.choice(COLOURS)} blanket"
    yield r.choice([f"They took {an(food)}, {an(cloth)} and {an(toy)} to play with.", f"{f.name} took {an(food)} and {an(cloth)}, and {w.name} took {an(toy)}."])
    yield r.choice(["But then big dark clouds came, and it began to rain.", "Soon a strong wind came, and then the rain began to fall."])
    yield r.choice([f'"Our picnic is over," said {f.name} in a sad voice.', f"{f.name} was sad because everything was wet."])
    yield r.choice([f'"No," said {w.name}, "I have an idea."', f"But {w.name} had a good idea."])
    yield r.choice([f"They ran home, put the blanket on the floor and had the picnic there.", f"They ran to the house of {w.his} {w.parent} and ate the {food} under the table."])
    yield r.choice([f"They played with the {toy} and told stories.", "They sang songs while the rain fell on the roof."])
    yield r.choice(["Then the sun came out again, and they saw a rainbow.", "When the rain stopped, there was a rainbow in the sky."])
    yield r.choice([f'"This was the best picnic ever," said {f.name}.', happy_end(r, w, f)])


SCENE_LINES = ["{a} saw {b}.", "{a} has the {t}.", "{b} took the {t}.", "Now {b} has the {t}.", "{a} and {b} ran home.", "{b} likes {a}.", "{a} smiled.",
               '"Hello, {b}," said {a}.', '"Where is the {t}?" asked {b}.', "{a} gave the {t} to {b}.", "Then {a} and {b} played.", "{b} ran after {a}.", "{a} sat next to {b}."]


def scene(r):
    """Two names and a thing, again and again: shows early that what was named comes back."""
    (a, b), t = r.sample(GIRLS + BOYS, 2), r.choice(TOYS)
    lines = []
    for _ in range(r.randrange(5, 10)):
        x, y = (a, b) if r.random() < 0.5 else (b, a)
        lines.append(r.choice(SCENE_LINES).format(a=x, b=y, t=t))
    return " ".join(lines)


PLOTS = [lost_and_found, sharing, broken, learning, rescue, gift, rule, growing, night, treasure, race, picnic]
INDOORS = {"library", "school", "castle"}
OUTDOOR_PLOTS = {rescue, race, picnic}


def story(r, want_held_out, name=None, animal=None):
    """One story; whether its (name, place, toy) is held out is the caller's choice."""
    while True:
        w = Who(r, name=name, animal=animal)
        f = Who(r, taken=(w.name,))
        place, toy = r.choice(list(PLACES)), r.choice(TOYS)
        if held_out("story", w.name, place, toy) == want_held_out:
            plot = r.choice([p for p in PLOTS if place not in INDOORS or p not in OUTDOOR_PLOTS])
            return " ".join([opening(r, w, place), *plot(r, w, f, place, toy)]), w


# ---------------------------------------------------------------------------- questions

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
SPOTS = ["under the table", "on the sofa", "in the garden", "behind the door", "next to the tree", "in the box", "on the roof", "under the bed", "in the kitchen", "on the bridge"]
PETS = "cat dog mouse frog bird fox rabbit duck pig sheep".split()
COUNTED = ["apples", "balls", "cookies", "books", "pears", "shells", "stones", "eggs"]
NAMES = GIRLS + BOYS


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


def q_who_has(r):
    n = r.choice([2, 2, 3])
    names, toys = r.sample(NAMES, n), r.sample(TOYS, n)
    i = r.randrange(n)
    facts = " ".join(f"{a} has the {b}." for a, b in zip(names, toys))
    who, toy = names[i], toys[i]
    q = [f"{facts} Who has the {toy}?", f"{facts} Tell me who has the {toy}.", f"{facts} Do you know who has the {toy}?"]
    return q, f"{who} has the {toy}.", f"{who} has the {toy}", (who, toy)


def q_has_what(r):
    n = r.choice([2, 2, 3])
    names, toys = r.sample(NAMES, n), r.sample(TOYS, n)
    i = r.randrange(n)
    facts = " ".join(f"{a} has the {b}." for a, b in zip(names, toys))
    who, toy = names[i], toys[i]
    q = [f"{facts} What does {who} have?", f"{facts} Tell me what {who} has.", f"{facts} Which thing does {who} have?"]
    return q, f"{who} has the {toy}.", f"{who} has the {toy}", (who, toy)


def q_where_is(r):
    pets, spots = r.sample(PETS, 2), r.sample(SPOTS, 2)
    i = r.randrange(2)
    facts = " ".join(f"The {a} is {b}." for a, b in zip(pets, spots))
    x, spot = pets[i], spots[i]
    q = [f"{facts} Where is the {x}?", f"{facts} Tell me where the {x} is.", f"{facts} Do you know where the {x} is?"]
    return q, f"The {x} is {spot}.", spot, (x, spot)


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


QUESTIONS = {
    "colour": (q_colour, 3), "home": (q_home, 3), "sound": (q_sound, 2), "opposite": (q_opposite, 3), "next": (q_next, 5), "sum": (q_sum, 6),
    "difference": (q_difference, 5), "who_has": (q_who_has, 5), "has_what": (q_has_what, 4), "where_is": (q_where_is, 4),
    "bigger": (q_bigger, 4), "bigger_number": (q_bigger_number, 3), "count": (q_count, 5), "kind": (q_kind, 3),
}
# What is held out: the arguments themselves where an answer can be worked out or copied, else a fact in one phrasing.
BY_ARGUMENTS = {"who_has", "has_what", "where_is", "bigger", "bigger_number", "count"}


def question(r, want_held_out, kind):
    """(question, answer, key): the key is the part of the answer that must be there."""
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
        name = r.choice(NAMES)
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


def practice(r):
    """A chat of questions only."""
    turns = [question(r, False, kind) for kind in r.choices(list(PRACTICE), list(PRACTICE.values()), k=6)]
    return "".join(USER + ask + END + ASSISTANT + answer + END for ask, answer, _ in turns)


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
    return story(r, False)[0] if x < 0.50 else chat(r) if x < 0.95 else sums(r)


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
