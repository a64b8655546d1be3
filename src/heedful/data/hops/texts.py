"""What the generated world of `hops.world` is told in: kinds of things, how they are linked, and many ways to say it.

A sentence about a link has `{x}` for the thing it leads to, one about a value `{v}`. What a question calls a link is
never what a passage calls it, so that words of the question alone do not lead to the second passage.
"""

from __future__ import annotations

from heedful.data.hops.words import Kind, Link, Value, listed

YEAR = (1790, 1995)

KINDS: dict[str, Kind] = {
    "film": Kind(
        word="film",
        nouns=("motion picture", "feature", "drama for the screen", "black-and-white picture"),
        adjectives=("long", "quiet", "much discussed", "low-budget", "silent"),
        links={
            "director": Link(
                "person",
                (
                    "Behind the camera stood {x}.",
                    "{x} was in charge of the shoot.",
                    "The project was staged and cut by {x}.",
                    "On the set everybody listened to {x}.",
                ),
                ("the director of {s}", "the person who directed {s}"),
            ),
            "producer": Link(
                "firm",
                (
                    "The money came from {x}.",
                    "{x} paid the bills.",
                    "It was financed by {x}.",
                    "All costs were borne by {x}.",
                ),
                ("the company that produced {s}", "the producer of {s}"),
            ),
            "setting": Link(
                "town",
                (
                    "The story plays in {x}.",
                    "Its streets are those of {x}.",
                    "Nearly every scene happens in {x}.",
                    "The plot never leaves {x}.",
                ),
                ("the town where {s} is set", "the setting of {s}"),
            ),
        },
        values={
            "year": Value(
                ("Audiences first saw it in {v}.", "The premiere was in {v}.", "It opened in {v}."),
                ("In which year was {s} released?", "What is the year of release of {s}?"),
                ("{s} was released in {v}.",),
                numbers=(1912, 1998),
            ),
        },
    ),
    "novel": Kind(
        word="novel",
        nouns=("book", "work of fiction", "story in three parts", "volume of prose"),
        adjectives=("slim", "bestselling", "half-forgotten", "satirical", "debut"),
        links={
            "author": Link(
                "person",
                (
                    "{x} wrote it in one winter.",
                    "It came from the pen of {x}.",
                    "The manuscript is in the hand of {x}.",
                    "Critics praised {x} for the dialogue.",
                ),
                ("the author of {s}", "the novelist behind {s}"),
            ),
            "publisher": Link(
                "firm",
                (
                    "{x} brought it out.",
                    "It was printed at the expense of {x}.",
                    "The first edition bears the mark of {x}.",
                    "It went on sale through {x}.",
                ),
                ("the publisher of {s}", "the company that published {s}"),
            ),
            "setting": Link(
                "region",
                (
                    "Its heroine crosses {x} on foot.",
                    "The landscape it describes is that of {x}.",
                    "All chapters take place in {x}.",
                    "It portrays peasant life in {x}.",
                ),
                ("the region where {s} is set", "the region described in {s}"),
            ),
        },
        values={
            "year": Value(
                ("Readers could buy it from {v} on.", "It reached shops in {v}.", "First copies are of {v}."),
                ("In which year was {s} published?", "What is the year of publication of {s}?"),
                ("{s} was published in {v}.",),
                numbers=YEAR,
            ),
        },
    ),
    "person": Kind(
        word="person",
        nouns=("{p}",),
        adjectives=("noted", "retired", "self-taught", "restless", "prolific"),
        also=(
            "Friends said {a}.",
            "Letters are signed {a}.",
            "The press wrote {a}.",
            "Colleagues preferred {a}.",
        ),
        links={
            "birthplace": Link(
                "town",
                (
                    "The family home stood in {x}.",
                    "A childhood in {x} left its mark.",
                    "The cradle stood in {x}.",
                    "The parish register of {x} has the baptism.",
                ),
                ("the birthplace of {s}", "the town where {s} was born"),
            ),
            "school": Link(
                "college",
                (
                    "There were four years as a student at {x}.",
                    "A degree from {x} followed.",
                    "{x} awarded a diploma with honours.",
                    "Lectures at {x} were formative.",
                ),
                ("the college that {s} attended", "the alma mater of {s}"),
            ),
            "employer": Link(
                "firm",
                (
                    "Wages came from {x} for decades.",
                    "A contract with {x} paid for everything.",
                    "The day job was at {x}.",
                    "{x} offered a desk and a salary.",
                ),
                ("the employer of {s}", "the company that {s} worked for"),
            ),
        },
        values={
            "born": Value(
                ("The year of birth is {v}.", "Life began in {v}.", "The baptism was in {v}."),
                ("When was {s} born?", "In which year was {s} born?"),
                ("{s} was born in {v}.",),
                numbers=(1770, 1960),
            ),
            "instrument": Value(
                (
                    "Evenings were spent with the {v}.",
                    "A recording on the {v} survives.",
                    "For pleasure there was the {v}.",
                ),
                ("Which musical instrument did {s} play?", "What instrument was played by {s}?"),
                ("{s} played the {v}.",),
                words=listed("flute accordion viola oboe harp zither trombone lute bassoon"),
            ),
        },
    ),
    "firm": Kind(
        word="company",
        nouns=("workshop", "manufacturer", "family enterprise", "maker of {p}"),
        adjectives=("small", "stubborn", "prosperous", "bankrupt", "cautious"),
        links={
            "founder": Link(
                "person",
                (
                    "{x} opened it with a loan.",
                    "It goes back to {x}.",
                    "The first ledger was kept by {x}.",
                    "It began in a shed of {x}.",
                ),
                ("the founder of {s}", "the person who founded {s}"),
            ),
            "seat": Link(
                "town",
                (
                    "Its head office is in {x}.",
                    "Orders are handled in {x}.",
                    "The directors meet in {x}.",
                    "Letters are to be sent to {x}.",
                ),
                ("the town where {s} has its headquarters", "the headquarters of {s}"),
            ),
        },
        values={
            "founded": Value(
                ("Business started in {v}.", "It was entered in the register in {v}.", "It dates from {v}."),
                ("In which year was {s} founded?", "When was {s} established?"),
                ("{s} was founded in {v}.",),
                numbers=YEAR,
            ),
            "emblem": Value(
                ("Its seal shows a {v}.", "A {v} is on every box.", "The trade mark is a {v}."),
                ("Which animal is on the logo of {s}?", "What animal is the emblem of {s}?"),
                ("The logo of {s} shows a {v}.",),
                words=listed("beaver heron stag lizard mole swan ram squid toad"),
            ),
        },
    ),
    "college": Kind(
        word="college",
        nouns=("place of learning", "academy", "institute", "teaching house"),
        adjectives=("strict", "modest", "renowned", "rural", "crowded"),
        links={
            "place": Link(
                "town",
                (
                    "Its halls are in {x}.",
                    "Students lodge in {x}.",
                    "The campus overlooks {x}.",
                    "The buildings stand in {x}.",
                ),
                ("the town where {s} is located", "the home town of {s}"),
            ),
            "patron": Link(
                "person",
                (
                    "{x} gave the land for it.",
                    "The endowment came from {x}.",
                    "It owes its library to {x}.",
                    "A bust of {x}, its benefactor, stands at the gate.",
                ),
                ("the patron of {s}", "the donor behind {s}"),
            ),
        },
        values={
            "founded": Value(
                ("Teaching began in {v}.", "The charter is of {v}.", "The doors opened in {v}."),
                ("In which year was {s} founded?", "When was {s} established?"),
                ("{s} was founded in {v}.",),
                numbers=YEAR,
            ),
            "colour": Value(
                ("Its gowns are {v}.", "Scarves there are {v}.", "The flag is plain {v}."),
                ("What is the colour of {s}?", "Which colour stands for {s}?"),
                ("The colour of {s} is {v}.",),
                words=listed("crimson ochre violet turquoise maroon indigo scarlet amber"),
            ),
        },
    ),
    "museum": Kind(
        word="museum",
        nouns=("gallery", "collection", "exhibition hall", "house of curiosities"),
        adjectives=("draughty", "popular", "municipal", "tiny", "private"),
        links={
            "place": Link(
                "town",
                (
                    "It is to be found in {x}.",
                    "The doors open onto the square of {x}.",
                    "Tourists reach it from the station of {x}.",
                    "It belongs to the sights of {x}.",
                ),
                ("the town where {s} is located", "the home town of {s}"),
            ),
            "architect": Link(
                "person",
                (
                    "{x} drew the plans.",
                    "The building is a design of {x}.",
                    "Its staircase is the best work of {x}.",
                    "The competition was won by {x}.",
                ),
                ("the architect of {s}", "the person who designed {s}"),
            ),
            "sponsor": Link(
                "firm",
                (
                    "{x} pays for the upkeep.",
                    "The yearly deficit is covered by {x}.",
                    "The new wing was a gift of {x}.",
                    "Tickets carry the name of {x}.",
                ),
                ("the sponsor of {s}", "the company that sponsors {s}"),
            ),
        },
        values={
            "shows": Value(
                ("It is full of {v}.", "Its cases hold {v}.", "People come for the {v}."),
                ("What is exhibited at {s}?", "What can be seen at {s}?"),
                ("{s} exhibits {v}.",),
                words=listed("spoons fossils puppets barometers tapestries beetles maps kites"),
            ),
        },
    ),
    "town": Kind(
        word="town",
        nouns=("market place", "municipality", "settlement", "borough"),
        adjectives=("walled", "sleepy", "windy", "busy", "hilly"),
        links={
            "river": Link(
                "river",
                (
                    "{x} flows past its mills.",
                    "Its bridges span {x}.",
                    "Floods of {x} have damaged it twice.",
                    "Barges come up {x} as far as here.",
                ),
                ("the river that runs through {s}", "the river on which {s} lies"),
            ),
            "region": Link(
                "region",
                (
                    "It belongs to {x}.",
                    "It is the oldest parish of {x}.",
                    "Its people count themselves to {x}.",
                    "Maps of {x} show it in the east.",
                ),
                ("the region in which {s} lies", "the region that contains {s}"),
            ),
        },
        values={
            "population": Value(
                ("{v} people live there.", "The last census counted {v} heads.", "It has {v} inhabitants."),
                ("What is the population of {s}?", "How many people live in {s}?"),
                ("The population of {s} is {v}.",),
                numbers=(1200, 98000),
            ),
            "saint": Value(
                (
                    "The church is that of Saint {v}.",
                    "A procession honours Saint {v}.",
                    "Saint {v} is on its coat of arms.",
                ),
                ("Who is the patron saint of {s}?", "Which saint protects {s}?"),
                ("The patron saint of {s} is {v}.",),
                words=listed("Agatha Blaise Cecilia Florian Gertrude Leonard Martin Odilia"),
            ),
        },
    ),
    "river": Kind(
        word="river",
        nouns=("stream", "watercourse", "body of running water", "tributary"),
        adjectives=("slow", "muddy", "navigable", "cold", "winding"),
        links={
            "source": Link(
                "region",
                (
                    "It rises in {x}.",
                    "Its springs are in {x}.",
                    "Rain from {x} feeds it.",
                    "It comes down from {x}.",
                ),
                ("the region where {s} has its source", "the source region of {s}"),
            ),
        },
        values={
            "length": Value(
                (
                    "From end to end it measures {v} kilometres.",
                    "It runs for {v} kilometres.",
                    "Boatmen reckon with {v} kilometres.",
                ),
                ("How many kilometres long is {s}?", "What is the length of {s} in kilometres?"),
                ("{s} is {v} kilometres long.",),
                numbers=(18, 940),
            ),
            "fish": Value(
                ("Anglers take {v} from it.", "It is rich in {v}.", "Its banks smell of smoked {v}."),
                ("Which fish is {s} known for?", "What fish is caught in {s}?"),
                ("{s} is known for its {v}.",),
                words=listed("trout eel pike carp perch salmon barbel tench"),
            ),
        },
    ),
    "region": Kind(
        word="region",
        nouns=("stretch of country", "province", "upland", "district"),
        adjectives=("fertile", "barren", "wooded", "border", "thinly settled"),
        links={
            "capital": Link(
                "town",
                (
                    "Its council sits in {x}.",
                    "Taxes are collected in {x}.",
                    "The governor resides in {x}.",
                    "It is administered from {x}.",
                ),
                ("the capital of {s}", "the seat of government of {s}"),
            ),
        },
        values={
            "crop": Value(
                ("Its fields bear {v}.", "Farmers there grow {v}.", "The wealth comes from {v}."),
                ("What crop is {s} known for?", "Which crop is grown in {s}?"),
                ("{s} is known for its {v}.",),
                words=listed("barley hops flax lentils saffron rye beets quinces"),
            ),
        },
    ),
}
