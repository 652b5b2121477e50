"""Short stories: twelve plots, each a list of sentences with a cause and an effect.

What is named once comes back as it was: people, things, colours, relatives. A plot yields its
sentences in order, each drawn from several ways to say the same.
"""

from phrases import an, cap, held_out

GIRLS = "Lily Mia Anna Rosa Emma Lucy Nora Ella Zoe Ruby Ivy Clara Maya Sara Alice Jane Daisy Kate Amy Bella Eva Grace Hannah Julia Laura Lena Molly Nina Olive Sophie".split()
BOYS = "Tom Ben Max Sam Leo Jack Finn Tim Oscar Adam Noah Paul Henry Luke Peter Felix Hugo Will Alex Carl Daniel Eric George Ian James Mark Nick Owen Robin Theo".split()
# Who a story is about and who comes along have names of their own, so that "the friend's name" is
# found by what it is. With names drawn from one list, one story in three ended with "Grace and Grace".
LEADS, FRIENDS = set(GIRLS[::2] + BOYS[::2]), set(GIRLS[1::2] + BOYS[1::2])
ANIMALS = "fox rabbit bear mouse squirrel duck puppy kitten hedgehog frog owl pony badger lamb turtle mole penguin".split()
GOOD = "kind brave clever cheerful curious gentle little young friendly quiet happy playful shy funny lazy proud hungry helpful".split()
COLOURS = "red blue green yellow white brown orange pink purple black".split()
TOYS = "ball kite doll drum boat book hat scarf basket lantern umbrella blanket cup bell balloon bucket whistle ring puzzle rope robot trumpet spoon mirror pencil shell flute".split()
# things to play with, and those of them that fly or roll about in a room
GAMES = "ball doll kite drum balloon whistle rope robot trumpet flute puzzle".split()
BOUNCING = "ball kite balloon robot rope boat drum".split()
FOODS = ["apple", "pear", "cake", "sandwich", "pie", "cookie", "orange", "bun", "pancake", "muffin", "peach", "melon"]
RELATIVES = ["mother", "father", "grandmother", "grandfather", "aunt", "uncle"]
WEATHER = ["sunny", "warm", "bright", "cold", "windy", "cloudy", "quiet", "lovely"]
TIMES = ["morning", "afternoon", "day", "evening"]
OUTDOORS = ["park", "beach", "forest", "garden", "farm", "lake", "hill", "village", "meadow", "river"]
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
CROPS = ["pumpkins", "tomatoes", "beans", "strawberries", "peas", "cucumbers"]
# (animal, where it is stuck, what helps, what it does then, where that can happen)
HELPLESS = [
    ("a small bird", "in a net", "cut the net with care", "flew up into the sky", ["garden", "lake", "river", "farm", "beach"]),
    ("a tiny kitten", "in a tall tree", "climbed up with a ladder", "purred softly", ["park", "garden", "village", "farm"]),
    ("a baby duck", "in the mud", "pulled it out with both hands", "waddled back to its mother", ["lake", "river", "farm", "park"]),
    ("a little lamb", "in a bush full of thorns", "moved the thorns away", "ran back to the other sheep", ["meadow", "hill", "farm"]),
    ("a young deer", "between two rocks", "pushed one rock away", "jumped into the trees", ["forest", "hill", "river"]),
    ("a green turtle", "on its back", "turned it over", "walked slowly to the water", ["beach", "lake", "river"]),
]
NOISES = [("a tapping sound", "a branch that tapped on the window"), ("a scratching sound", "a mouse that was looking for crumbs"),
          ("a loud bang", "a door that moved in the wind"), ("a soft crying sound", "a kitten that was cold and hungry"),
          ("a strange hooting sound", "an owl that sat on the roof"), ("a rattling sound", "an empty can that rolled down the road")]
RULES = [
    ("touch the hot stove", "touched the hot stove", "It hurt a lot"),
    ("climb on the shelf", "climbed on the shelf", "The shelf fell down with a crash"),
    ("jump in the mud", "jumped in the mud", "Soon everything was wet and dirty"),
    ("open the gate", "opened the gate", "All the chickens ran away"),
    ("play near the well", "played near the well", "{His} shoe fell into the deep water"),
    ("shake the apple tree", "shook the apple tree", "A big apple fell on {his} head"),
]
GIFTS = [("a card", "paper and paint"), ("a necklace", "shells and string"), ("a cake", "flour, eggs and sugar"), ("a small chair", "wood and nails"),
         ("a warm hat", "soft wool"), ("a puppet", "an old sock and two buttons"), ("a crown", "leaves and flowers")]
ROOMS = ["kitchen", "bedroom", "hall", "living room"]
FRAGILE = ["cup", "vase", "plate", "lamp", "bowl", "clock"]


class Who:
    """A character: name, noun and pronouns."""

    def __init__(self, rng, names, name=None):
        girl = name in GIRLS if name else rng.random() < 0.5
        self.name = name or rng.choice([n for n in (GIRLS if girl else BOYS) if n in names])
        self.he, self.him, self.his = ("she", "her", "her") if girl else ("he", "him", "his")
        self.animal = rng.random() < 0.3
        self.noun = rng.choice(ANIMALS) if self.animal else ("girl" if girl else "boy")
        self.adj = rng.choice(GOOD)
        self.parent = rng.choice(RELATIVES)


def opening(w, r):
    adj, noun, name = w.adj, w.noun, w.name
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
    yield r.choice([f"They ate the {food} together, and it tasted very good.", f"The {food} was very good, and they ate every bit of it."])
    yield r.choice([f"Because {w.name} was kind, {f.name} gave {w.him} {an(r.choice(COLOURS) + ' ' + toy)}.",
                    f"After that, they went to {fun} together.", f"{f.name} said thank you three times."])
    yield r.choice([f"{w.name} learned that sharing makes food taste better.", f"{w.name} learned that it is good to share.", happy_end(r, w, f)])


def broken(r, w, f, place, toy):
    room, thing = r.choice(ROOMS), r.choice(FRAGILE)
    yield r.choice([f"One rainy {r.choice(TIMES)}, {w.name} played in the {room} with {an(toy)}.", f"One rainy day, {w.name} ran around in the {room} with {an(toy)}."])
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
    yield r.choice([f"One {r.choice(TIMES)}, {w.he} tried it for the first time and {fail}.", f"The first time, {w.he} {fail}."])
    yield r.choice([f'"I will never learn it," said {w.name}.', f"{w.name} wanted to give up.", f"{w.name} felt very sad."])
    yield r.choice([f'{friend_intro(r, f)} said, "Do not give up. Try again."', f'{friend_intro(r, f)} said, "I will show you how."'])
    yield r.choice([f"So {w.name} tried again every day.", f"So every {r.choice(TIMES)} {w.name} and {f.name} worked hard."])
    if r.random() < 0.5:
        yield r.choice(["Some days were good, and some days were bad.", f"Little by little, it became easier.", f"Each day, {w.name} was a little better."])
    yield r.choice([f"After many days, {w.name} {did} {where}.", f"At last, {w.name} {did} {where}, and nothing went wrong."])
    yield r.choice([f'"You did it!" shouted {f.name}.', f"{f.name} clapped and cheered.", f"{w.name} could not believe it."])
    yield r.choice([f"Now {w.name} loves {doing}.", f"{w.name} learned that you should never give up.", happy_end(r, w, f)])


def rescue(r, w, f, place, toy):
    animal, stuck, did, after, _ = r.choice([h for h in HELPLESS if place in h[4]])
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
    yield r.choice([f"{w.name} began to cry and called for help.", f'"Help!" cried {w.name}.', f'"Oh no, I should have listened!" cried {w.name}.'])
    yield r.choice([f"{cap(w.his)} {w.parent} heard it, came and helped {w.him}.", f"{friend_intro(r, f)} heard it and ran to get {w.his} {w.parent}."])
    yield r.choice([f'"I am sorry," said {w.name}. "Next time I will listen."', f'"I will not do it again," said {w.name}.'])
    yield r.choice([f"{cap(w.his)} {w.parent} gave {w.him} a hug, and all was well.", f"After that, {w.name} always listened.", f"{cap(w.his)} {w.parent} smiled and gave {w.him} {an(r.choice(FOODS))}."])


def growing(r, w, f, place, toy):
    many = r.choice(CROPS)
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
    cloth = f"{r.choice(COLOURS)} blanket"
    yield r.choice([f"They took {an(food)}, {an(cloth)} and {an(toy)} to play with.", f"{f.name} took {an(food)} and {an(cloth)}, and {w.name} took {an(toy)}."])
    yield r.choice(["But then big dark clouds came, and it began to rain.", "Soon a strong wind came, and then the rain began to fall."])
    yield r.choice([f'"Our picnic is over," said {f.name} in a sad voice.', f"{f.name} was sad because everything was wet."])
    yield r.choice([f'"No," said {w.name}, "I have an idea."', f"But {w.name} had a good idea."])
    yield r.choice([f"They ran home, put the blanket on the floor and had the picnic there.", f"They ran to the house of {w.his} {w.parent} and ate the {food} under the table."])
    yield r.choice([f"They played with the {toy} and told stories.", "They sang songs while the rain fell on the roof."])
    yield r.choice(["Then the sun came out again, and they saw a rainbow.", "When the rain stopped, there was a rainbow in the sky."])
    yield r.choice([f'"This was the best picnic ever," said {f.name}.', happy_end(r, w, f)])


# plot: (where it can happen, what it can be about)
PLOTS = {
    lost_and_found: (list(PLACES), TOYS),
    sharing: (OUTDOORS, TOYS),
    broken: (list(PLACES), BOUNCING),
    learning: (list(PLACES), TOYS),
    rescue: (sorted({place for h in HELPLESS for place in h[4]}), TOYS),
    gift: (OUTDOORS + ["castle"], TOYS),
    rule: (list(PLACES), TOYS),
    growing: (OUTDOORS, TOYS),
    night: (list(PLACES), TOYS),
    treasure: (list(PLACES), GAMES),
    race: (OUTDOORS, TOYS),
    picnic: (OUTDOORS, GAMES),
}


# The plots in which something said once decides a sentence much later.
LONG_MEMORY = [learning, learning, rescue]


def story(r, want_held_out, name=None, plots=tuple(PLOTS)):
    """One story; whether its (name, place, toy) is held out is the caller's choice."""
    while True:
        w, f = Who(r, LEADS, name), Who(r, FRIENDS)
        plot = r.choice(plots)
        place, toy = map(r.choice, PLOTS[plot])
        if held_out("story", w.name, place, toy) == want_held_out:
            return " ".join([opening(w, r), *plot(r, w, f, place, toy)]), w
