#!/usr/bin/env python3
"""The text that the demo model learns: dialogues made from the files in corpus/, all of it written for this project.

    python3 ops/demo/make_corpus.py --count 20      # print some dialogues
train.py calls dialogues() itself; nothing is written to disk.

corpus/*.en.txt and *.zh.txt hold topics:
    @ id | title of a chat about it | what it is about, as a clause
    ? a question; {a|b|} are alternatives
    ?? noun | noun          every usual way to ask about one of these nouns
    = the answer; \\n is a line break
    + the answer to "tell me more"
The .tsv files hold facts (capitals, words, opposites, sounds), from which questions with short answers are made, and unknown.*.txt
questions that the model should decline. A question is then dressed up (greeting, please, case, punctuation, a typing
mistake), and dialogues are made of one to several turns, with system prompts as NextChat sends them, follow-ups, and
NextChat's own title and summary requests at the end.
"""
import argparse
import random
import re
import zlib
from collections import namedtuple
from itertools import accumulate
from pathlib import Path

CORPUS = Path(__file__).resolve().parent / "corpus"
LANGUAGES = ("en", "zh")
MAX_EXPANSIONS = 400

Turn = namedtuple("Turn", "lang question answer title subject more")
Topic = namedtuple("Topic", "lang name title subject patterns answer more")

ABOUT = {
    "en": ["what is {X}", "what's {X}", "what are {X}", "tell me about {X}", "{please |}tell me something about {X}",
           "{please |}explain {X}{| to me}", "{please |}describe {X}", "what do you know about {X}", "{X}", "what about {X}",
           "{can|could} you {explain|describe} {X}", "{can|could} you tell me about {X}", "{please |}talk {to me |}about {X}",
           "i want to {know|learn|hear} {more |something |}about {X}", "do you know {|anything about |something about }{X}",
           "{write|say} something about {X}", "give me {some |}information {about|on} {X}", "define {X}",
           "what can you tell me about {X}", "what does {X} do", "how does {X} work", "what is {X} for", "let's talk about {X}",
           "i have a question about {X}", "who or what is {X}", "what is meant by {X}"],
    "zh": ["{X}是什么", "什么是{X}", "{请|}介绍一下{X}", "{请|}{说说|讲讲|谈谈|聊聊}{X}", "{请|}解释一下{X}", "{X}有什么用",
           "{X}是干什么的", "{X}是做什么的", "{X}", "你知道{X}吗", "我想了解{X}", "告诉我关于{X}的事", "{X}是什么意思",
           "跟我{说说|讲讲|聊聊}{X}", "{请|}介绍{X}", "{关于|说到}{X}，你知道什么", "{X}的作用是什么", "写一段关于{X}的文字",
           "{X}怎么样", "你了解{X}吗", "{X}怎么工作"],
}
MORE = {
    "en": ["tell me more", "{please |}{go on|continue}", "more", "{more please|and then|what else|and|really}",
           "{tell|teach} me more{| about it| about that|, please}", "{can|could} you {tell me more|say more|explain more}",
           "i want to {know|hear} more", "give me more details", "more details", "what else do you know{| about it}"],
    "zh": ["{继续|请继续|接着说|再说一点|多说一点|然后呢|还有呢|还有吗|更多}", "{告诉我|跟我说|讲}更多{|吧}", "{能|可以}{说|讲}详细{一点|点|一些}吗",
           "{再|}详细{一点|说说|讲讲}", "还有什么", "真的吗"],
}
NO_MORE = {
    "en": "That is all I know about it, I am afraid: I am a very small model. Is there something else you would like to ask?",
    "zh": "关于这个，我知道的就这么多了，毕竟我是个很小的模型。还想问点别的吗？",
}
DECLINE = {
    "en": "I am only a small demo model, so I cannot help with that. Ask me about Millrace, or try a capital, a small sum, a joke "
          "or a story.",
    "zh": "我只是一个小小的演示模型，这个我帮不上忙。可以问我 Millrace 的事，或者首都、小加法、笑话和故事。",
}
LONG_TEXT = {
    "en": "That is a long text. I am only a small demo model and cannot say much about it, but it arrived completely.",
    "zh": "这段文字很长。我只是一个小小的演示模型，说不出太多，但是它完整地收到了。",
}
TITLE_REQUEST = {
    "en": "Please generate a four to five word title summarizing our conversation without any lead-in, punctuation, quotation "
          "marks, periods, symbols, bold text, or additional text. Remove enclosing quotation marks.",
    "zh": "使用四到五个字直接返回这句话的简要主题，不要解释、不要标点、不要语气词、不要多余文本，不要加粗，如果没有主题，请直接返回“闲聊”",
}
SUMMARY_REQUEST = {
    "en": "Summarize the discussion briefly in 200 words or less to use as a prompt for future context.",
    "zh": "简要总结一下对话内容，用作后续的上下文提示 prompt，控制在 200 字以内",
}
RECAP = {"en": "This is a summary of the chat history as a recap: ", "zh": "这是历史聊天总结作为前情提要："}
CHAT_TITLE = {"en": "A Friendly Chat", "zh": "闲聊"}
FOX = "The quick brown fox jumps over the lazy dog near the river bank. "
SYSTEM = [
    "You are ChatGPT, a large language model trained by OpenAI.", "You are a helpful assistant.", "You are a helpful, honest "
    "and friendly assistant. Answer briefly.", "You are DeepSeek, a large language model.", "Be concise.", "你是一个有用的助手。",
    "Answer in the language of the user.", "You are the assistant of a company. Be polite.", "请用简短的话回答用户的问题。",
    "You are millrace-demo.", "You are a language model behind a chat app.",
]


# --- reading corpus/ ---

def expand(pattern):
    """All strings of a pattern with {a|b|} alternatives, innermost first."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    head, tail = pattern[:found.start()], pattern[found.end():]
    return [text for option in found.group(1).split("|") for text in expand(head + option + tail)]


def about(lang, noun):
    return [pattern.replace("{X}", noun) for pattern in ABOUT[lang]]


def answer_text(text):
    kind, _, number = text.partition(" ")
    if kind == "@count":
        return ", ".join(str(i) for i in range(1, int(number) + 1)) + "."
    return text.replace("\\n", "\n")


def read_topics(path):
    lang = path.name.split(".")[-2]
    topics = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        mark, _, text = line.partition(" ")
        if mark == "@":
            topics.append(Topic(lang, *(part.strip() for part in text.split("|")), [], [], []))
        elif mark == "?":
            topics[-1].patterns.append([text])
        elif mark == "??":
            topics[-1].patterns.extend(about(lang, noun.strip()) for noun in text.split(" | "))
        elif mark in ("=", "+"):
            (topics[-1].answer if mark == "=" else topics[-1].more).append(answer_text(text))
        elif line.strip():
            raise SystemExit(f"{path}:{number}: not a line of a topic: {line}")
    return topics


def read_rows(name):
    return [line.split("\t") for line in (CORPUS / name).read_text().splitlines()]


def read_unknown(lang):
    """(patterns, nouns, verb phrases) of a file of questions to decline."""
    sections = re.split(r"^#.*\n", (CORPUS / f"unknown.{lang}.txt").read_text(), flags=re.M)[1:]
    return sections[0].splitlines(), sections[1].strip().split(", "), sections[2].strip().split(", ")


# --- held-out questions ---

def held_out(question):
    """One question in twenty is never trained on, so that train.py can see what the model makes of new ones."""
    return zlib.crc32(question.lower().encode()) % 20 == 0


class Questions:
    """The questions of one topic, each pattern equally likely; the first wording of each stays in training."""

    def __init__(self, topic):
        self.train, self.held = [], []
        for group in topic.patterns:
            texts = [text for pattern in group for text in expand(pattern)]
            random.Random(len(texts)).shuffle(texts)
            keep = texts[:1] + [text for text in texts[1:MAX_EXPANSIONS] if not held_out(text)]
            self.train.append(keep)
            self.held.extend(text for text in texts[1:MAX_EXPANSIONS] if held_out(text))

    def draw(self, rng, held=False):
        return rng.choice(self.held) if held else rng.choice(rng.choice(self.train))


# --- dressing a question up ---

OPENERS = {
    "en": ["hi, ", "hello, ", "hey, ", "please, ", "so, ", "ok, ", "hello! ", "hi! ", "and ", "well, ", "thanks. ", "one question: ",
           "i want to ask: ", "good morning, ", "excuse me, ", "now ", "great, "],
    "zh": ["你好，", "请问", "请问，", "那么，", "我想知道，", "那", "好的，", "您好，", "问一下，", "谢谢，"],
}
CLOSERS = {
    "en": ["?", "?", "?", "?", "?", ".", "!", " ?", "??", "...", " please", ", please", " please?", "?!", ", thanks", " "],
    "zh": ["？", "？", "？", "？", "?", "。", "！", "呢？", "??", "，谢谢", "？？", "…"],
}


def misspell(rng, text):
    """One typing mistake: a letter lost, doubled, or swapped with its neighbour."""
    if len(text) < 6:
        return text
    i = rng.randrange(1, len(text) - 1)
    return rng.choice([text[:i] + text[i + 1:], text[:i] + text[i] + text[i:],
                       text[:i] + text[i + 1] + text[i] + text[i + 2:]])


def dress(rng, lang, text):
    if rng.random() < 0.15:
        text = rng.choice(OPENERS[lang]) + text
    if rng.random() < 0.04:
        text = misspell(rng, text)
    if rng.random() < 0.6 and text[-1] not in "!?.！？。":
        text += rng.choice(CLOSERS[lang])
    style = rng.random()
    if style < 0.5:
        text = text[0].upper() + text[1:]
        return re.sub(r"\b(millrace|kafka|redis|i|english|chinese)\b",
                      lambda m: m.group().capitalize(), text) if lang == "en" else text
    if lang == "en" and style < 0.55:
        return text.upper()
    if lang == "en" and style < 0.57:
        return text.title()
    return text


# --- turns made from facts ---

def sum_turn(rng, lang):
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    minus = rng.random() < 0.4
    if minus:
        a, b = max(a, b), min(a, b)
    elif a + b > 20:
        a, b = a % 11, b % 11
    result = a - b if minus else a + b
    sign, word, zh = ("-", "minus", "减") if minus else ("+", "plus", "加")
    forms = {"en": [f"what is {a} {sign} {b}", f"{a} {sign} {b}", f"{a}{sign}{b}", f"how much is {a} {word} {b}", f"{a} {sign} {b} =",
                    f"what is {a} {word} {b}", f"{a} {word} {b}", f"what's {a}{sign}{b}", f"how much is {a} {sign} {b}",
                    f"calculate {a} {sign} {b}", f"compute {a}{sign}{b}", f"can you add {a} and {b}" if not minus else
                    f"subtract {b} from {a}"],
             "zh": [f"{a}{zh}{b}等于几", f"{a} {sign} {b} 等于多少", f"{a}{sign}{b}", f"{a}{sign}{b}=", f"{a}{zh}{b}是多少",
                    f"{a}{sign}{b}等于几", f"计算 {a}{sign}{b}", f"{a}{zh}{b}"]}
    end = {"en": ".", "zh": "。"}[lang]
    title = {"en": "A Small Sum", "zh": "简单算术"}[lang]
    return Turn(lang, rng.choice(forms[lang]), f"{a} {sign} {b} = {result}{end}", title, {"en": "a small sum", "zh": "一道算术题"}[lang], "")


def times_turn(rng, lang):
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    forms = {"en": [f"what is {a} times {b}", f"{a} * {b}", f"{a} x {b}", f"how much is {a} times {b}", f"{a}*{b}"],
             "zh": [f"{a}乘{b}等于几", f"{a}乘以{b}是多少", f"{a}*{b}", f"{a}x{b}等于多少"]}
    end = {"en": ".", "zh": "。"}[lang]
    title = {"en": "A Small Product", "zh": "简单乘法"}[lang]
    return Turn(lang, rng.choice(forms[lang]), f"{a} x {b} = {a * b}{end}", title, {"en": "a multiplication", "zh": "一道乘法题"}[lang], "")


def capital_turn(rng, lang):
    country, city, country_zh, city_zh = rng.choice(CAPITALS)
    if lang == "zh":
        forms = [f"{country_zh}的首都是哪里", f"{country_zh}的首都是什么", f"{country_zh}首都", f"{country_zh}的首都", f"哪个城市是{country_zh}的首都",
                 f"{country_zh}的首都是哪个城市", f"{country_zh}首都是哪"]
        return Turn(lang, rng.choice(forms), f"{country_zh}的首都是{city_zh}。", f"{country_zh}的首都", f"{country_zh}的首都", "")
    if rng.random() < 0.15:
        forms = [f"{city} is the capital of {rng.choice(['which', 'what'])} country", f"which country has the capital {city}",
                 f"where is {city}", f"in which country is {city}"]
        return Turn(lang, rng.choice(forms), f"{city} is the capital of {country}.", f"The City Of {city}", f"the city of {city}", "")
    forms = [f"what is the capital of {country}", f"what's the capital of {country}", f"capital of {country}",
             f"which city is the capital of {country}", f"tell me the capital of {country}", f"the capital of {country}",
             f"do you know the capital of {country}", f"name the capital of {country}", f"{country.removeprefix('the ')}'s capital"]
    return Turn(lang, rng.choice(forms), f"The capital of {country} is {city}.", f"The Capital Of {country.removeprefix('the ')}",
                f"the capital of {country}", "")


def word_turn(rng, lang):
    en, zh = rng.choice(WORDS)
    if rng.random() < 0.5:
        forms = {"en": [f"what is {en} in chinese", f"how do you say {en} in chinese", f"translate {en} into chinese",
                        f"what does {en} mean in chinese", f"{en} in chinese", f"how do i say {en} in chinese"],
                 "zh": [f"{en}用中文怎么说", f"{en}是什么意思", f"{en}的中文是什么", f"把{en}翻译成中文"]}[lang]
    else:
        forms = {"en": [f"what does {zh} mean", f"what is {zh} in english", f"translate {zh} into english", f"{zh} in english",
                        f"what does {zh} mean in english"],
                 "zh": [f"{zh}用英文怎么说", f"{zh}用英语怎么说", f"{zh}的英文是什么", f"把{zh}翻译成英文", f"{zh}英文怎么说"]}[lang]
    question = rng.choice(forms)
    to_chinese = en in question
    answer = {"en": f"The Chinese word for {en} is {zh}." if to_chinese else f"{zh} means {en}.",
              "zh": f"{en} 的中文是“{zh}”。" if to_chinese else f"“{zh}”的英文是 {en}。"}[lang]
    return Turn(lang, question, answer, {"en": "A Word In Translation", "zh": "单词翻译"}[lang],
                {"en": f"the word {en}", "zh": f"单词 {en}"}[lang], "")


def opposite_turn(rng, lang):
    a, b, a_zh, b_zh = rng.choice(OPPOSITES)
    if rng.random() < 0.5:
        a, b, a_zh, b_zh = b, a, b_zh, a_zh
    if lang == "zh":
        return Turn(lang, rng.choice([f"{a_zh}的反义词是什么", f"“{a_zh}”的反义词", f"{a_zh}的反面是什么"]),
                    f"“{a_zh}”的反义词是“{b_zh}”。", "反义词", f"“{a_zh}”的反义词", "")
    return Turn(lang, rng.choice([f"what is the opposite of {a}", f"the opposite of {a}", f"opposite of {a}",
                                  f"what's the opposite of {a}"]),
                f"The opposite of {a} is {b}.", "Words And Opposites", f"the opposite of {a}", "")


def sound_turn(rng, lang):
    animal, sound, animal_zh, sound_zh = rng.choice(SOUNDS)
    if lang == "zh":
        return Turn(lang, rng.choice([f"{animal_zh}怎么叫", f"{animal_zh}的叫声是什么", f"{animal_zh}是怎么叫的"]),
                    f"{animal_zh}的叫声是“{sound_zh}”。", "动物的叫声", f"{animal_zh}的叫声", "")
    return Turn(lang, rng.choice([f"what sound does a {animal} make", f"what does a {animal} say", f"how does a {animal} sound",
                                  f"what does the {animal} say"]),
                f"The {animal} says {sound}.", "Animal Sounds", f"the sound of a {animal}", "")


def sequence_turn(rng, lang):
    kind, items = rng.choice([("day", DAYS), ("month", MONTHS)])
    i, after = rng.randrange(len(items)), rng.random() < 0.6
    other = items[(i + (1 if after else -1)) % len(items)]
    word = "after" if after else "before"
    forms = [f"what {kind} comes {word} {items[i].lower()}", f"which {kind} comes {word} {items[i]}", f"what is {word} {items[i].lower()}",
             f"which {kind} is {word} {items[i]}"]
    return Turn("en", rng.choice(forms), f"{other} comes {word} {items[i]}.", "Days And Months", f"the {kind} {word} {items[i]}", "")


def unknown_turn(rng, lang):
    patterns, nouns, verbs = UNKNOWN[lang]
    text = rng.choice(expand(rng.choice(patterns)))
    for mark, draw in (("<n>", lambda: rng.choice(nouns)), ("<v>", lambda: rng.choice(verbs)), ("<g>", lambda: gibberish(rng, lang))):
        while mark in text:
            text = text.replace(mark, draw(), 1)
    return Turn(lang, text, DECLINE[lang], CHAT_TITLE[lang], {"en": "something the assistant does not know",
                                                              "zh": "助手不知道的事情"}[lang], "")


def gibberish(rng, lang):
    if lang == "zh":
        return "".join(chr(rng.randint(0x4E00, 0x9FA5)) for _ in range(rng.randint(2, 6)))
    letters = "abcdefghijklmnopqrstuvwxyz" if rng.random() < 0.8 else "abcdeABCDE0123456789_-#/"
    return "".join(rng.choice(letters) for _ in range(rng.randint(3, 10)))


def long_text_turn(rng, lang):
    if rng.random() < 0.4:
        text = FOX * rng.randint(3, 12)
    else:
        text = " ".join(rng.choice(ALL_ANSWERS[lang]) for _ in range(rng.randint(3, 5)))
    return Turn(lang, text, LONG_TEXT[lang], CHAT_TITLE[lang], {"en": "a long text", "zh": "一段长文字"}[lang], "")


def names_dialogue(rng, lang):
    """The user's name comes back one turn, or some turns, later."""
    name = rng.choice(NAMES)
    tell = {"en": [f"my name is {name}", f"i am {name}", f"i'm {name}", f"call me {name}", f"hello, my name is {name}"],
            "zh": [f"我叫{name}", f"我的名字是{name}", f"你好，我叫{name}", f"我是{name}"]}[lang]
    ask = {"en": ["what is my name", "what's my name", "do you remember my name", "who am i", "do you know my name"],
           "zh": ["我叫什么名字", "我叫什么", "你记得我的名字吗", "我的名字是什么", "你知道我叫什么吗"]}[lang]
    hello = {"en": f"Nice to meet you, {name}! What can I do for you?", "zh": f"很高兴认识你，{name}！有什么可以帮你的吗？"}[lang]
    known = {"en": f"Your name is {name}.", "zh": f"你叫{name}。"}[lang]
    clause = {"en": "the user's name", "zh": "用户的名字"}[lang]
    turns = [Turn(lang, rng.choice(tell), hello, {"en": "Getting To Know You", "zh": "互相认识"}[lang], clause, "")]
    if rng.random() < 0.5:
        turns.append(topic_turn(rng, lang))
    if rng.random() < 0.8:
        turns.append(Turn(lang, rng.choice(ask), known, {"en": "The User's Name", "zh": "用户的名字"}[lang], clause, ""))
    return turns


def nameless_turn(rng, lang):
    ask = {"en": ["what is my name", "what's my name", "who am i"], "zh": ["我叫什么名字", "我叫什么"]}[lang]
    answer = {"en": "You have not told me your name yet. What is it?", "zh": "你还没有告诉我你的名字。你叫什么？"}[lang]
    return Turn(lang, rng.choice(ask), answer, {"en": "The User's Name", "zh": "用户的名字"}[lang],
                {"en": "the user's name", "zh": "用户的名字"}[lang], "")


def jokes_dialogue(rng, lang):
    """A joke, and another one, in a fixed order, so that "another one" has one right answer."""
    first = {"en": ["tell me a joke", "tell me a funny joke", "do you know a joke", "a joke please", "joke", "make me laugh", "say something funny",
                    "can you tell me a joke", "do you know any jokes", "i want to hear a joke", "tell a joke"],
             "zh": ["讲个笑话", "给我讲个笑话", "说个笑话", "来个笑话", "讲一个笑话", "你会讲笑话吗", "逗我笑", "请讲一个笑话", "说一个笑话"]}[lang]
    again = {"en": ["another one", "another joke", "one more", "tell me another one", "another one please", "tell me another joke", "one more joke",
                    "yes"],
             "zh": ["再来一个", "再讲一个", "再说一个", "还有吗", "再来一个笑话"]}[lang]
    jokes = JOKES[lang]
    title = {"en": "Jokes And Laughter", "zh": "讲笑话"}[lang]
    clause = {"en": "jokes", "zh": "笑话"}[lang]
    start = 0 if rng.random() < 0.7 else rng.randrange(len(jokes))
    count = 1 if start == 0 and rng.random() < 0.4 else rng.randint(1, 3)
    turns = [Turn(lang, rng.choice(first), jokes[0], title, clause, "")] if start == 0 else []
    for i in range(max(start, 1), min(start + count, len(jokes))):
        if not turns:
            turns.append(Turn(lang, rng.choice(again if i > 1 else first), jokes[i - 1], title, clause, ""))
        turns.append(Turn(lang, rng.choice(again), jokes[i], title, clause, ""))
    return turns


# --- putting dialogues together ---

def load():
    global TOPICS, TOPIC_WEIGHTS, ALL_ANSWERS, CAPITALS, WORDS, OPPOSITES, SOUNDS, NAMES, JOKES, UNKNOWN
    topics = [t for path in sorted(CORPUS.glob("*.*.txt")) if path.name.split(".")[0] in ("millrace", "chat", "world")
              for t in read_topics(path)]
    TOPICS = {lang: [(t, Questions(t)) for t in topics if t.lang == lang] for lang in LANGUAGES}
    TOPIC_WEIGHTS = {lang: list(accumulate(len(t.patterns) ** 0.5 * (FIRST_WEIGHT if t.name in FIRST else 1) for t, _ in TOPICS[lang]))
                     for lang in LANGUAGES}
    ALL_ANSWERS = {lang: [t.answer[0] for t, _ in TOPICS[lang]] for lang in LANGUAGES}
    CAPITALS, WORDS, OPPOSITES, SOUNDS = (read_rows(f"{name}.tsv") for name in ("capitals", "words", "opposites", "sounds"))
    NAMES = [row[0] for row in read_rows("names.tsv")]
    JOKES = {lang: (CORPUS / f"jokes.{lang}.txt").read_text().splitlines() for lang in LANGUAGES}
    UNKNOWN = {lang: read_unknown(lang) for lang in LANGUAGES}


# What people say to a demo first, which it should know best.
FIRST, FIRST_WEIGHT = ("hello", "intro", "thanks", "what", "made_of", "run", "crash"), 6

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"]
FACTS = [(sum_turn, 6), (times_turn, 2), (capital_turn, 6), (word_turn, 3), (opposite_turn, 1.5), (sound_turn, 1), (sequence_turn, 1),
         (unknown_turn, 9), (long_text_turn, 0.5), (nameless_turn, 0.5)]


def draw_topic(rng, lang):
    """A topic that can be asked for in more ways needs more practice, and one that is asked for first."""
    return rng.choices(TOPICS[lang], cum_weights=TOPIC_WEIGHTS[lang])[0]


def topic_turn(rng, lang, held=False):
    topic, questions = draw_topic(rng, lang)
    while held and not questions.held:
        topic, questions = draw_topic(rng, lang)
    return Turn(lang, questions.draw(rng, held), topic.answer[0], topic.title, topic.subject,
                topic.more[0] if topic.more else NO_MORE[lang])


def any_turn(rng, lang):
    if rng.random() < 0.7:
        return topic_turn(rng, lang)
    make = rng.choices([f for f, _ in FACTS], [w for _, w in FACTS])[0]
    return make(rng, lang)


def several_turns(rng, lang):
    """One turn or a few, with names, jokes and "tell me more" among them."""
    kind = rng.random()
    if kind < 0.03:
        return names_dialogue(rng, lang)
    if kind < 0.06:
        return jokes_dialogue(rng, lang)
    turns = [any_turn(rng, lang)]
    while rng.random() < 0.3 and len(turns) < 5:
        if turns[-1].more and rng.random() < 0.35:
            question = rng.choice(expand(rng.choice(MORE[lang])))
            turns.append(turns[-1]._replace(question=question, answer=turns[-1].more, more=NO_MORE[lang]))
        elif rng.random() < 0.05:
            turns.extend(jokes_dialogue(rng, lang))
        else:
            turns.append(any_turn(rng, lang if rng.random() < 0.9 else rng.choice(LANGUAGES)))
    return turns


def summary_of(lang, turns):
    subjects = list(dict.fromkeys(t.subject for t in turns))
    if lang == "zh":
        return f"用户和助手谈到了{'、'.join(subjects)}。"
    listed = subjects[0] if len(subjects) == 1 else ", ".join(subjects[:-1]) + " and " + subjects[-1]
    return f"The user and the assistant talked about {listed}."


def system_prompt(rng):
    if rng.random() < 0.4:
        text = rng.choice(SYSTEM)
        when = f"Mon Nov {rng.randint(10, 28)} 2026 {rng.randint(10, 23)}:{rng.randint(10, 59)}:{rng.randint(10, 59)} GMT+0000"
        return (f"\nYou are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2023-10\nCurrent model: "
                f"{rng.choice(['gpt-4o-mini', 'millrace-demo', 'our-chat'])}\nCurrent time: {when} (Coordinated Universal Time)\n"
                "Latex inline: \\(x^2\\) \nLatex block: $$e=mc^2$$\n\n") if rng.random() < 0.5 else text
    if rng.random() < 0.2:
        return RECAP["en"] + FOX * rng.randint(1, 10)
    lang = rng.choice(LANGUAGES)
    return RECAP[lang] + summary_of(lang, [any_turn(rng, lang) for _ in range(rng.randint(1, 4))])


def closing(rng, lang, turns, kind):
    """NextChat's own call at the end of a chat, and its answer."""
    asked = lang if rng.random() < 0.8 else "en"
    if kind == "title":
        return [("user", TITLE_REQUEST[asked]), ("assistant", turns[-1].title)]
    return [("system", SUMMARY_REQUEST[asked]), ("assistant", summary_of(lang, turns))]


def dialogue(rng, kind=None):
    """A list of (role, text) that ends with an answer; with NextChat's "title" or "summary" call where kind says so, else by chance."""
    lang = "en" if rng.random() < 0.62 else "zh"
    turns = several_turns(rng, lang)
    messages = [("system", system_prompt(rng))] if rng.random() < 0.15 else []
    for turn in turns:
        messages += [("user", dress(rng, turn.lang, turn.question)), ("assistant", turn.answer)]
    kind = kind or rng.choices((None, "title", "summary"), (0.76, 0.14, 0.10))[0]
    return messages + (closing(rng, lang, turns, kind) if kind else [])


def dialogues(count, seed):
    rng = random.Random(seed)
    return [dialogue(rng) for _ in range(count)]


def held_out_dialogues(count, seed):
    """Single questions that dialogues() never asks in these words."""
    rng, found = random.Random(seed), []
    for _ in range(count):
        lang = "en" if rng.random() < 0.62 else "zh"
        turn = topic_turn(rng, lang, held=True)
        found.append([("user", dress(rng, lang, turn.question)), ("assistant", turn.answer)])
    return found


def closed_dialogues(count, seed, kind):
    """Dialogues that end with NextChat's "title" or "summary" call."""
    rng = random.Random(seed)
    return [dialogue(rng, kind) for _ in range(count)]


load()

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for messages in dialogues(options.count, options.seed):
        print("\n".join(f"{role}: {text}" for role, text in messages), end="\n\n")
