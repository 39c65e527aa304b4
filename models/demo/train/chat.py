"""Chat turns around the tales: requests, openings to go on from, questions about a tale, small talk."""
import random
import re

# The end of a sentence: not after Mr. and the like.
SENTENCE = re.compile(r'(?<!Mr)(?<!Mrs)(?<!Dr)(?<!St)(?<! [A-Z])[.!?]"?(?= [A-Z"]|\n)')

ASKS = """Tell me a story.|Tell me a story, please.|Can you tell me a story?|Write a short story.|Tell me a bedtime story.|tell me a story|
Tell me a fairy tale.|I would like to hear a story.|Tell me a story about {who}.|Tell me a story about {who} named {H}.|
Write a story about {who} and {fwho}.|Can you tell me a story about {who} and {fwho}?|Tell me about {H} {h}.|
Please tell me a story about {H} {h} and {F} {f}.|Write a short story about {H}.|Write a short story about {who} who {event}.|
Tell me how {H} {h} {event}.|I want to hear a story about {theme}.|Tell me a story about {theme}.|Write a story about {theme}.|
A story about {hkind}s, please.|story about {who}|Write a fairy tale about {who}.|Tell me a bedtime story about {who}.|
Write a story that shows that {lesson}.|Tell me a story about {who}. It should show that {lesson}.|
Could you write a little story about {who} in {home}?|Make up a story about {who}.|Tell me a tale of {who} and {fwho}.|
Once upon a time there was {who}. Go on!|Tell my children a story about {who}.|Write a children's story about {theme}."""
THING_ASKS = """Tell me a story about {who} and {a}.|Write a story about {who} and a {t}.|Write a short story with a {t} in it.|
Can you tell me a story about {a}?|Tell me a story about a {t}.|story about a {t}|Tell me a bedtime story about {who} with {a}."""
SYSTEMS = ["You are a helpful assistant.", "You are a storyteller.", "You tell short stories to children.", "You are a friendly assistant. Keep it short."]
TALK = [
    (["Hello", "Hello!", "Hi", "Hi!", "hi there", "Hey", "Good morning", "Good evening!", "Good day."],
     ["Hello! Would you like to hear a story?", "Hello! Shall I tell you a story?", "Good day! What should the story be about?", "Hello, my friend. Who should my story be about?"]),
    (["Who are you?", "What are you?", "What is your name?", "who are you", "Are you a robot?", "Tell me about yourself."],
     ["I am a small storyteller. I learned from old books and simple tales. Shall I tell you one?", "I am a very small language model that tells stories. What should the story be about?"]),
    (["What can you do?", "Help", "How can you help me?", "What do you know?", "What should I ask you?"],
     ["I can tell you simple stories. Say \"Once upon a time\", or tell me who the story should be about.", "I tell little stories. Ask me for a story about a fox and a lantern, for example."]),
    (["Thank you!", "Thanks", "Thank you for the story.", "That was nice.", "I liked it."],
     ["You are welcome! Would you like to hear another story?", "I am glad that you liked it. Shall I tell you one more?"]),
    (["Good night", "Good night!", "Goodbye", "Bye", "See you tomorrow."], ["Good night, and sleep well!", "Goodbye! Come back for another story.", "Good night! May your dreams be sweet."]),
    (["How are you?", "How are you today?", "How do you feel?"], ["I am well, thank you. Shall I tell you a story?", "Very well, thank you! Would you like to hear a story?"]),
    (["What is 2 + 2?", "What is the capital of France?", "Write a program in Python.", "What is the weather like?", "Who is the president?", "Translate this into German.",
      "Explain how a computer works.", "What is 17 times 23?", "How do I cook rice?", "What time is it?", "What is the meaning of life?", "Why is the sky blue?"],
     ["I do not know much about that. I am only a small storyteller. Shall I tell you a story?", "I am sorry, I only know stories. Would you like to hear one?"]),
]


def turn(role, text):
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def opening(rng, text):
    """The first words of a tale, as a user may type them."""
    words = text.split("\n")[0].split(" ")
    if text.startswith("Once upon a time") and rng.random() < 0.5:
        return rng.choice(["Once upon a time"] * 5 + ["Once upon a time,", "Once upon a time...", "once upon a time", "Once upon a time there was"])
    if rng.random() < 0.4:
        return text[:text.index(".") + 1] if "." in text[:200] else " ".join(words[:6])
    return " ".join(words[:rng.randint(2, 12)])


def follow_up(rng, tale):
    f = tale["facts"]
    choices = [(f"What was the name of {f['h']}?", f"{f['hHis']} name was {f['H']}."), (f"Who was {f['H']}?", f"{f['H']} was the {f['hkind']} in the story."),
               ("What does the story show?", f"It shows that {tale['lesson']}."), ("What is the lesson of the story?", f"The lesson is that {tale['lesson']}."),
               ("Who is the story about?", f"It is about {f['H']} {f['h']}."), (f"Where did {f['H']} live?", f"{f['H']} lived in {f['home']}."),
               ("What is the story about?", f"It is about {f['H']} {f['h']}, who {tale['event']}.")]
    if f"{f['F']} {f['f']}" in tale["text"]:
        choices.append((f"Who was {f['F']}?", f"{f['F']} was the {f['fkind']} in the story."))
    if rng.random() < 0.3:
        ask, answer = rng.choice(TALK[3][0]), rng.choice(TALK[3][1])
    else:
        ask, answer = rng.choice(choices)
    return turn("user", ask) + turn("assistant", answer)


def request(rng, tale):
    facts = dict(tale["facts"], theme=tale["theme"], lesson=tale["lesson"], event=tale["event"])
    asks = ASKS.split("|")
    if f" {facts['t']}" in tale["text"] and rng.random() < 0.4:
        asks = THING_ASKS.split("|")
    return rng.choice(asks).strip().format(**facts)


def render(rng, tale):
    """A tale as one training document: plain (a third), or as a chat."""
    kind = rng.random()
    if kind < 0.33:
        return tale["text"] + "<|endoftext|>"
    user = opening(rng, tale["text"]) if kind < 0.68 else request(rng, tale)
    system = turn("system", rng.choice(SYSTEMS)) if rng.random() < 0.04 else ""
    more = follow_up(rng, tale) if rng.random() < 0.2 else ""
    return system + turn("user", user) + turn("assistant", tale["text"]) + more


def small_talk(rng):
    asks, answers = rng.choice(TALK)
    return turn("user", rng.choice(asks)) + turn("assistant", rng.choice(answers))


def continuation(rng, paragraphs):
    """Some paragraphs of a book as a chat: the user gives the first sentences, the assistant goes on."""
    text = "\n".join(paragraphs)
    ends = [m.end() for m in SENTENCE.finditer(text[:400]) if m.end() > 25 and text[:m.end()].count('"') % 2 == 0]
    if not ends or len(text) < 700:
        return None
    cut = rng.choice(ends[:3])
    return turn("user", text[:cut]) + turn("assistant", text[cut:].strip())
