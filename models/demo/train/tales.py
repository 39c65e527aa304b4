"""Simple tales by construction: a cast, a place and a thing are drawn, then a plot is told from many paraphrases.

In a template [a|b|c] is a free choice (nesting allowed), {x} is a fact of this tale, and ¶ starts a new paragraph.
A beat that begins with ? is left out half of the time. Every sentence of a plot follows from the ones before it.
"""
import random
import re

from tale_plots import CLOSINGS, INTROS, PLOTS, SCENES

HE_NAMES = """Tom Ben Max Sam Tim Jack Leo Finn Ned Hugo Oscar Peter Will Joe Henry Toby Fred Billy George Harry Charlie Dan Luke
Adam Noah Theo Rory Miles Felix Hans Omar Ravi Kofi Ken Pablo Marco Ivan Sami Pip Rusty Jasper Patch Otto Milo Bruno Gus Barnaby
Robin Scout Bramble Biscuit Button Ziggy Albert Edgar Walter Jonas Anton Emil Oliver Simon Martin Paul Arthur Hector""".split()
SHE_NAMES = """Lily Anna Mia Lucy Sara Ella Rose Molly Daisy Ivy Nora Grace Ruby Alice Clara Emma May Jane Polly Kate Sophie Amy
Hannah Zoe Maya Eva Tess Wendy Penny Greta Leila Mina Ada Yuki Rosa Nina Olga Zara Hazel Poppy Willow Clover Coco Fern Ginger
Honey Juno Tilly Bella Pepper Plum Dot Martha Elsie Matilda Flora Ida Agnes Wanda Stella Vera Lotte Marie""".split()
ANIMALS = """fox rabbit mouse bear owl cat dog duck frog hedgehog squirrel turtle bee pony lamb kitten puppy crow goose pig hen wolf
deer otter beaver badger mole sparrow robin lion elephant monkey penguin dragon bunny goat donkey calf parrot raccoon chipmunk
piglet duckling cub foal""".split()
PEOPLE = {"he": "boy farmer baker fisherman king prince knight shepherd tailor miller sailor gardener woodcutter painter wizard cook "
                "drummer carpenter shoemaker clockmaker".split(),
          "she": "girl baker queen princess shepherdess gardener painter witch fairy cook singer weaver teacher potter dancer".split()}
YOUNG = {"boy", "girl", "prince", "princess"}
TRAITS = """brave shy kind curious clever cheerful gentle careful playful quiet friendly young busy hopeful patient merry lively
thoughtful polite bold""".split()
# noun with its article, "at" phrase, "to" phrase
PLACES = """the forest|in the forest|into the forest;the meadow|in the meadow|to the meadow;the river|by the river|to the river;
the pond|by the pond|to the pond;the hill|on the hill|up the hill;the old mill|near the old mill|to the old mill;
the beach|on the beach|to the beach;the garden|in the garden|into the garden;the market|at the market|to the market;
the old oak tree|under the old oak tree|to the old oak tree;the orchard|in the orchard|to the orchard;
the bridge|by the bridge|to the bridge;the barn|behind the barn|to the barn;the village green|on the village green|to the village green;
the lake|beside the lake|to the lake;the stone wall|beside the stone wall|to the stone wall;the valley|in the valley|down into the valley;
the well|by the well|to the well;the wood pile|behind the wood pile|to the wood pile;the field|in the field|across the field""".replace("\n", "").split(";")
HOMES = """a small village;a green forest;a quiet farm;a little house by the sea;a deep valley;a cottage in the woods;a big old barn;
a town with narrow streets;a house on a hill;a hollow tree;a little house near the river;a village at the foot of a mountain;
a windy island;a sunny valley;a farm at the end of a long road;a house with a red roof""".replace("\n", "").split(";")
THINGS = """ball kite lantern drum umbrella hat book music box paper star pair of boots|rope mirror candle blanket teddy bear scarf whistle ring
basket bell map spoon coat pillow toy boat|wooden horse|violin bucket button key shell feather coin cup doll toy train|flute
necklace wagon brush clock""".replace("\n", " ")
THINGS = [w.strip() for part in THINGS.split("|") for w in re.findall(r"music box|paper star|pair of boots|teddy bear|toy boat|wooden horse|toy train|\w+", part)]
COLOURS = "red blue green yellow golden silver little old new shiny bright small beautiful striped purple round".split()
FOODS = """apples;berries;carrots;cookies;pears;nuts;plums;cherries;honey cakes;buns;pancakes;strawberries;warm rolls;turnips;
peaches;sandwiches;muffins;potatoes""".replace("\n", "").split(";")
SMALL = ["mouse", "bird", "beetle", "butterfly", "kitten", "duckling", "ladybug", "bee", "snail", "baby rabbit", "chick", "frog"]
CASES = {"he": ("he", "him", "his", "himself"), "she": ("she", "her", "her", "herself")}


def article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def person(rng, used):
    """One character: name, kind, pronouns. Names and kinds differ within a tale."""
    while True:
        sex = rng.choice(["he", "she"])
        kind = rng.choice(ANIMALS) if rng.random() < 0.62 else rng.choice(PEOPLE[sex])
        name = rng.choice(HE_NAMES if sex == "he" else SHE_NAMES)
        if kind not in used and name not in used:
            used |= {kind, name}
            return name, kind, CASES[sex]


def cast(rng):
    facts, used = {}, set()
    for letter in "HFG":
        name, kind, (he, him, his, self_) = person(rng, used)
        low = letter.lower()
        facts.update({letter: name, low: "the " + kind, low + "kind": kind, low + "he": he, low + "him": him, low + "his": his,
                      low + "self": self_, low + "He": he.capitalize(), low + "His": his.capitalize()})
    trait = rng.choice(TRAITS)
    little = facts["hkind"] in YOUNG or facts["hkind"] in ANIMALS
    looks = [f"{trait} {facts['hkind']}", facts["hkind"]] + [f"little {facts['hkind']}", f"{trait} little {facts['hkind']}"] * (2 * little)
    one, two, three = rng.sample(PLACES, 3)
    thing = rng.choice(THINGS)
    colour = rng.choice(COLOURS) + " " if rng.random() < 0.7 else ""
    facts.update(who=article(rng.choice(looks)), fwho=article(facts["fkind"]), gwho=article(facts["gkind"]), trait=trait,
                 home=rng.choice(HOMES), a=article(colour + thing), t=thing, foods=rng.choice(FOODS), small=rng.choice(SMALL))
    for suffix, place in zip(("", "2", "3"), (one, two, three)):
        noun, at, to = place.split("|")
        facts.update({"p" + suffix: noun, "at" + suffix: at, "to" + suffix: to})
    for key in ("h", "f", "g"):
        facts[key.upper() + "the"] = facts[key].capitalize()
    return facts


CHOICE = re.compile(r"\[([^\[\]]*)\]")


def expand(rng, template):
    while True:
        template, n = CHOICE.subn(lambda m: rng.choice(m.group(1).split("|")), template)
        if not n:
            return template


def tidy(text):
    text = re.sub(r" +", " ", text).replace(" ¶ ", "\n\n").replace(" ¶", "\n\n").replace("¶ ", "\n\n").strip()
    return re.sub(r'(^|[.!?]"? |\n)("?)([a-z])', lambda m: m.group(1) + m.group(2) + m.group(3).upper()
                  if not m.group(1).endswith('" ') else m.group(0), text)


def tale(rng):
    """-> dict(text, facts, theme)"""
    facts = cast(rng)
    plot = rng.choice(PLOTS)
    beats = [rng.choice(INTROS)] if plot.get("intro", True) else []
    for beat in plot["beats"]:
        beat = rng.choice(beat) if isinstance(beat, list) else beat
        if not beat.startswith("?"):
            beats.append(beat)
        elif rng.random() < 0.5:
            beats.append(beat[1:])
        if rng.random() < 0.02:
            beats.append(rng.choice(SCENES))
    if rng.random() < 0.8:
        beats.append(rng.choice(CLOSINGS))
    if rng.random() < 0.3:
        beats.append(plot["moral"])
    text = " ".join(expand(rng, b) for b in beats).format(**facts)
    return dict(text=tidy(text), facts=facts, theme=expand(rng, plot["theme"]), lesson=expand(rng, plot["lesson"]),
                event=expand(rng, plot["event"]).format(**facts))


if __name__ == "__main__":
    rng = random.Random()
    for _ in range(6):
        t = tale(rng)
        print(t["text"], "\n--", t["theme"], "|", t["lesson"], "|", t["event"], "\n")
