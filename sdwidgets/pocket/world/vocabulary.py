"""The words of Pocket's world: which glyphs there are and what each is called.

Plain data; knows nothing of pictures. Emoji are given as the sequences that Noto Color Emoji draws, and names
are the words that captions use. Adding a word here means building the atlas again (see `atlas.py`).
"""

from __future__ import annotations

OBJECTS: dict[str, str] = {
    # food
    "apple": "🍎", "banana": "🍌", "pear": "🍐", "cherries": "🍒", "strawberry": "🍓", "pineapple": "🍍", "watermelon": "🍉",
    "lemon": "🍋", "orange fruit": "🍊", "peach": "🍑", "grapes": "🍇", "kiwi": "🥝", "coconut": "🥥", "tomato": "🍅", "avocado": "🥑",
    "eggplant": "🍆", "carrot": "🥕", "corn": "🌽", "broccoli": "🥦", "cucumber": "🥒", "potato": "🥔", "onion": "🧅", "garlic": "🧄",
    "bread": "🍞", "croissant": "🥐", "pretzel": "🥨", "cheese": "🧀", "egg": "🥚", "pizza": "🍕", "hamburger": "🍔",
    "hot dog": "🌭", "taco": "🌮", "sushi": "🍣", "cake": "🎂", "cookie": "🍪", "donut": "🍩", "ice cream": "🍦", "chocolate bar": "🍫",
    "candy": "🍬", "lollipop": "🍭", "honey pot": "🍯", "cup of coffee": "☕", "teapot": "🫖", "glass of milk": "🥛",
    # animals
    "cat": "🐱", "dog": "🐶", "fox": "🦊", "bear": "🐻", "panda": "🐼", "lion": "🦁", "tiger": "🐯", "cow": "🐮", "pig": "🐷", "frog": "🐸",
    "monkey": "🐵", "chicken": "🐔", "penguin": "🐧", "owl": "🦉", "horse": "🐴", "unicorn": "🦄", "bee": "🐝", "butterfly": "🦋",
    "turtle": "🐢", "snake": "🐍", "octopus": "🐙", "fish": "🐠", "whale": "🐳", "dolphin": "🐬", "shark": "🦈", "elephant": "🐘",
    "giraffe": "🦒", "zebra": "🦓", "camel": "🐫", "kangaroo": "🦘", "rabbit": "🐰", "mouse": "🐭", "hamster": "🐹", "koala": "🐨",
    "wolf": "🐺", "raccoon": "🦝", "hedgehog": "🦔", "bat": "🦇", "eagle": "🦅", "duck": "🦆", "swan": "🦢", "parrot": "🦜",
    "flamingo": "🦩", "peacock": "🦚", "turkey": "🦃", "crab": "🦀", "lobster": "🦞", "snail": "🐌", "ladybug": "🐞", "ant": "🐜",
    "spider": "🕷️", "scorpion": "🦂", "crocodile": "🐊", "dinosaur": "🦕", "dragon": "🐲", "sheep": "🐑", "llama": "🦙",
    "squirrel": "🐿️", "otter": "🦦", "sloth": "🦥",
    # plants and sky
    "tree": "🌳", "pine tree": "🌲", "palm tree": "🌴", "cactus": "🌵", "rose": "🌹", "tulip": "🌷", "sunflower": "🌻", "mushroom": "🍄",
    "clover": "🍀", "maple leaf": "🍁", "sun": "☀️", "moon": "🌙", "cloud": "☁️", "rainbow": "🌈", "snowflake": "❄️", "fire": "🔥",
    "lightning bolt": "⚡", "water drop": "💧", "globe": "🌍", "volcano": "🌋",
    # travel and places
    "car": "🚗", "bus": "🚌", "train": "🚂", "truck": "🚚", "tractor": "🚜", "bicycle": "🚲", "scooter": "🛴", "motorcycle": "🏍️",
    "airplane": "✈️", "helicopter": "🚁", "rocket": "🚀", "flying saucer": "🛸", "sailboat": "⛵", "ship": "🚢", "anchor": "⚓",
    "traffic light": "🚦", "house": "🏠", "castle": "🏰", "tent": "⛺", "ferris wheel": "🎡", "fountain": "⛲", "tower": "🗼",
    # things
    "alarm clock": "⏰", "hourglass": "⌛", "book": "📕", "guitar": "🎸", "trumpet": "🎺", "violin": "🎻", "drum": "🥁", "piano": "🎹",
    "soccer ball": "⚽", "basketball": "🏀", "tennis racket": "🎾", "football": "🏈", "key": "🔑", "lock": "🔒", "light bulb": "💡",
    "camera": "📷", "television": "📺", "computer": "💻", "telephone": "☎️", "crown": "👑", "ring": "💍", "gift": "🎁", "balloon": "🎈",
    "robot": "🤖", "ghost": "👻", "alien": "👽", "pumpkin": "🎃", "snowman": "⛄", "umbrella": "☂️", "gemstone": "💎", "trophy": "🏆",
    "bell": "🔔", "magnet": "🧲", "hammer": "🔨", "wrench": "🔧", "axe": "🪓", "scissors": "✂️", "pencil": "✏️", "paintbrush": "🖌️",
    "paper clip": "📎", "envelope": "✉️", "backpack": "🎒", "suitcase": "🧳", "shoe": "👟", "boot": "👢", "hat": "🎩", "glasses": "👓",
    "shirt": "👕", "dress": "👗", "jeans": "👖", "glove": "🧤", "scarf": "🧣", "sock": "🧦", "chair": "🪑", "bed": "🛏️", "door": "🚪",
    "bathtub": "🛁", "candle": "🕯️", "teddy bear": "🧸", "kite": "🪁", "yo-yo": "🪀", "dice": "🎲", "puzzle piece": "🧩",
    "telescope": "🔭", "microscope": "🔬", "test tube": "🧪", "compass": "🧭", "map": "🗺️", "skull": "💀", "footprints": "👣",
}  # fmt: skip

# Every occupation that the font draws as a woman and as a man in five skin tones.
# With a tool: WOMAN or MAN + tone + joiner + tool. With a sign: person + tone + joiner + gender sign.
OCCUPATIONS: dict[str, tuple[str, str]] = {
    "doctor": ("tool", "⚕️"), "student": ("tool", "🎓"), "teacher": ("tool", "🏫"), "judge": ("tool", "⚖️"), "farmer": ("tool", "🌾"),
    "cook": ("tool", "🍳"), "mechanic": ("tool", "🔧"), "factory worker": ("tool", "🏭"), "office worker": ("tool", "💼"),
    "scientist": ("tool", "🔬"), "programmer": ("tool", "💻"), "singer": ("tool", "🎤"), "artist": ("tool", "🎨"), "pilot": ("tool", "✈️"),
    "astronaut": ("tool", "🚀"), "firefighter": ("tool", "🚒"), "police officer": ("sign", "👮"), "detective": ("sign", "🕵"),
    "guard": ("sign", "💂"), "construction worker": ("sign", "👷"),
}  # fmt: skip

GENDERS: dict[str, tuple[str, str]] = {"woman": ("👩", "♀️"), "man": ("👨", "♂️")}

# The words for the five Fitzpatrick modifiers; emoji are drawings, not people.
TONES: dict[str, str] = {
    "light skinned": "🏻", "medium light skinned": "🏼", "medium skinned": "🏽", "medium dark skinned": "🏾", "dark skinned": "🏿",
}  # fmt: skip

# sRGB, 8 bits a channel; far enough apart that a pixel decides which word is meant.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40), "orange": (247, 140, 30), "yellow": (250, 215, 50), "green": (60, 165, 70), "blue": (40, 95, 215),
    "purple": (130, 65, 180), "pink": (245, 150, 190), "black": (25, 25, 28), "white": (248, 248, 245), "gray": (140, 140, 145),
}  # fmt: skip

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "crescent")

PLURALS: dict[str, str] = {
    "cherries": "cherries", "grapes": "grapes", "glasses": "glasses", "jeans": "jeans", "scissors": "scissors", "dice": "dice",
    "footprints": "footprints", "sheep": "sheep", "fish": "fish", "sushi": "sushi", "broccoli": "broccoli", "bread": "bread",
    "cheese": "cheese", "fire": "fires", "wolf": "wolves", "mouse": "mice", "cup of coffee": "cups of coffee", "glass of milk": "glasses of milk",
    "maple leaf": "maple leaves", "strawberry": "strawberries", "butterfly": "butterflies", "candy": "candies", "scarf": "scarves",
    "peach": "peaches", "fox": "foxes", "ostrich": "ostriches", "bus": "buses", "torch": "torches", "dress": "dresses", "tomato": "tomatoes",
    "potato": "potatoes", "volcano": "volcanoes", "octopus": "octopuses", "walrus": "walruses", "cactus": "cactuses", "paintbrush": "paintbrushes",
    "sandwich": "sandwiches", "ladybug": "ladybugs", "sloth": "sloths", "compass": "compasses", "puzzle piece": "puzzle pieces",
    "cross": "crosses", "wrench": "wrenches", "hourglass": "hourglasses",
}  # fmt: skip

#: Objects whose name is a plural already, so that they take no article.
PLURAL_NAMES = ("cherries", "grapes", "glasses", "jeans", "scissors", "footprints")

NUMBERS: tuple[str, ...] = ("zero", "one", "two", "three", "four")


def plural(noun: str) -> str:
    """The plural that captions use: "cat" -> "cats", "fox" -> "foxes"."""
    return PLURALS.get(noun, noun + "s")


def article(phrase: str) -> str:
    """`phrase` with its indefinite article: "apple" -> "an apple", "unicorn" -> "a unicorn", "small jeans" -> "small jeans"."""
    if phrase.split()[-1] in PLURAL_NAMES:
        return phrase
    vowel = phrase[0] in "aeiou" and not phrase.startswith("unicorn")
    return ("an " if vowel else "a ") + phrase


def person_emoji(occupation: str, gender: str, tone: str) -> str:
    """The emoji sequence for one person, e.g. ("astronaut", "woman", "dark skinned")."""
    kind, symbol = OCCUPATIONS[occupation]
    adult, sign = GENDERS[gender]
    joiner = "\u200d"
    return adult + TONES[tone] + joiner + symbol if kind == "tool" else symbol + TONES[tone] + joiner + sign


def person_name(occupation: str, gender: str, tone: str) -> str:
    """The words for one person: "dark skinned woman astronaut"."""
    return f"{tone} {gender} {occupation}"
