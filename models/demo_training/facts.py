"""The small facts that the demo model is taught, as (question, answer) pairs; nothing here is computed."""

import random

from demo_training.templates import expand

_SOUNDS = {
    "cat": "meow", "dog": "woof", "cow": "moo", "duck": "quack", "sheep": "baa", "pig": "oink", "lion": "roar",
    "bee": "buzz", "frog": "croak", "owl": "hoot", "horse": "neigh", "snake": "hiss", "mouse": "squeak",
}  # fmt: skip

_COLORS = {
    "grass": "green", "snow": "white", "a lemon": "yellow", "a carrot": "orange", "the sky on a clear day": "blue",
    "milk": "white", "a strawberry": "red", "coal": "black", "a ripe banana": "yellow", "a flamingo": "pink",
    "a fire engine": "red", "chocolate": "brown", "a crow": "black", "a pea": "green",
}  # fmt: skip

_OPPOSITES = [
    "hot cold",
    "big small",
    "up down",
    "day night",
    "happy sad",
    "fast slow",
    "wet dry",
    "old young",
    "hard soft",
    "full empty",
    "open closed",
    "left right",
    "loud quiet",
    "light dark",
    "long short",
    "high low",
    "early late",
    "good bad",
    "in out",
    "clean dirty",
]

_BABIES = {
    "dog": "puppy", "cat": "kitten", "cow": "calf", "sheep": "lamb", "duck": "duckling", "horse": "foal",
    "bear": "cub", "frog": "tadpole", "goose": "gosling", "deer": "fawn", "goat": "kid", "pig": "piglet",
}  # fmt: skip

_HOMES = {
    "birds": "in nests", "bees": "in a hive", "fish": "in water", "rabbits": "in burrows", "bears": "in dens",
    "spiders": "in webs", "penguins": "where it is cold", "camels": "in the desert", "ants": "in ant hills",
    "monkeys": "in the trees", "whales": "in the sea", "beavers": "in lodges",
}  # fmt: skip

_AFTER = {
    "Monday": "Tuesday", "Tuesday": "Wednesday", "Wednesday": "Thursday", "Thursday": "Friday",
    "Friday": "Saturday", "Saturday": "Sunday", "Sunday": "Monday", "spring": "summer", "summer": "autumn",
    "autumn": "winter", "winter": "spring",
}  # fmt: skip

_JOBS = {
    "baker": "bakes bread", "farmer": "grows food", "sailor": "sails ships", "doctor": "helps sick people",
    "teacher": "teaches children", "painter": "paints pictures", "gardener": "looks after plants",
    "pilot": "flies planes", "postman": "brings letters", "cook": "makes food", "fisher": "catches fish",
    "clockmaker": "makes clocks", "firefighter": "puts out fires", "singer": "sings songs",
}  # fmt: skip

_USES = {
    "an umbrella": "stay dry in the rain", "a lamp": "see in the dark", "a key": "open a door", "a pen": "write",
    "a spoon": "eat soup", "a bed": "sleep", "a broom": "sweep the floor", "a boat": "cross the water",
    "a clock": "tell the time", "a bucket": "carry water", "a map": "find the way", "a coat": "keep warm",
}  # fmt: skip

_SINGLE = (
    ("What do bees make?", "Bees make honey."),
    ("Where does milk come from?", "Milk comes from cows."),
    ("What shines in the sky at night?", "The moon and the stars shine at night."),
    ("What shines in the sky by day?", "The sun shines by day."),
    ("How many legs does a spider have?", "A spider has eight legs."),
    ("How many legs does a dog have?", "A dog has four legs."),
    ("How many legs does a bird have?", "A bird has two legs."),
    ("How many legs does an insect have?", "An insect has six legs."),
    ("How many days are in a week?", "There are seven days in a week."),
    ("How many seasons are there?", "There are four seasons: spring, summer, autumn and winter."),
    ("What are the four seasons?", "The four seasons are spring, summer, autumn and winter."),
    (
        "What are the days of the week?",
        "The days are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.",
    ),
    ("What is ice made of?", "Ice is made of water."),
    ("What does a caterpillar become?", "A caterpillar becomes a butterfly."),
    ("What does a seed become?", "A seed becomes a plant."),
    ("Where does the sun rise?", "The sun rises in the east."),
    ("Where does the sun set?", "The sun sets in the west."),
    ("What is the biggest animal?", "The blue whale is the biggest animal."),
    ("What is the tallest animal?", "The giraffe is the tallest animal."),
    ("What is the fastest animal on land?", "The cheetah is the fastest animal on land."),
    ("What makes a rainbow?", "Sun and rain make a rainbow."),
    ("What do plants need?", "Plants need water, light and air."),
    ("What falls from the clouds?", "Rain and snow fall from the clouds."),
    ("What is a bucket brigade?", "A bucket brigade is a line of people who pass buckets of water from hand to hand."),
    ("What do cows eat?", "Cows eat grass."),
    ("What do rabbits eat?", "Rabbits eat grass and leaves."),
    ("What do pandas eat?", "Pandas eat bamboo."),
    ("What do we breathe?", "We breathe air."),
)


def all_facts() -> list[tuple[str, str]]:
    """Return every fact once, in its plain wording."""
    facts = [(f"What does a {animal} say?", f"A {animal} says {sound}.") for animal, sound in _SOUNDS.items()]
    facts += [(f"What colour is {thing}?", f"{thing} is {color}.") for thing, color in _COLORS.items()]
    for pair in _OPPOSITES:
        first, second = pair.split()
        facts.append((f"What is the opposite of {first}?", f"The opposite of {first} is {second}."))
        facts.append((f"What is the opposite of {second}?", f"The opposite of {second} is {first}."))
    facts += [
        (f"What is a baby {animal} called?", f"A baby {animal} is called a {baby}.") for animal, baby in _BABIES.items()
    ]
    facts += [(f"Where do {animals} live?", f"{animals} live {home}.") for animals, home in _HOMES.items()]
    facts += [(f"What comes after {first}?", f"After {first} comes {second}.") for first, second in _AFTER.items()]
    facts += [(f"What does a {job} do?", f"A {job} {work}.") for job, work in _JOBS.items()]
    facts += [(f"What is {thing} for?", f"You can use {thing} to {use}.") for thing, use in _USES.items()]
    return [
        (expand(question, _NO_CHANCE, {}), expand(answer, _NO_CHANCE, {})) for question, answer in [*facts, *_SINGLE]
    ]


_NO_CHANCE = random.Random(0)  # the facts hold no choices; expand() only sets articles and capitals
