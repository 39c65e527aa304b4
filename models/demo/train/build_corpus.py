"""Texts -> tokenizer, held-out texts and compressed token files.

  python build_corpus.py books.txt books.tsv corpus/ model/ --tales 180000

books.txt: public-domain books, a paragraph a line, each book ended by <|endoftext|>; books.tsv: author, title, bytes, difficulty.
"""
import argparse
import json
import lzma
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

import chat
from tales import tale

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
YOUNG = ("Alger Nesbit Baum Alcott Montgomery Burnett Kipling Stevenson Grimm Andersen Potter Lofting Spyri Collodi Carroll Barrie Grahame "
         "Brown Twain Lang Wyss Sewell Porter Jacobs Milne MacDonald Wiggin Webster Defoe Verne Henty Ransome Thompson Seton Hawthorne").split()
LIMIT = 505  # tokens of a document: longer ones would never fit a row of 512
TEMPLATE = """{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""


def make_tales(job):
    seed, count = job
    rng = random.Random(seed)
    tales = [tale(rng) for _ in range(count)]
    return [chat.render(rng, t) for t in tales]


def load_books(path, table):
    """-> list of (author, title, text), in the order of the table."""
    rows = [line.split("\t") for line in Path(table).read_text().splitlines()]
    texts = Path(path).read_text().split("<|endoftext|>")
    books = [(r[0], r[1], t.strip()) for r, t in zip(rows, texts)]
    return [b for b in books if b[2]]


def is_young(author):
    return any(name in author for name in YOUNG)


def train_tokenizer(samples):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=8192, special_tokens=[AddedToken(s, special=True, normalized=False) for s in SPECIAL],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tok.train_from_iterator(samples, trainer)
    return tok


def save_tokenizer(tok, out):
    out.mkdir(parents=True, exist_ok=True)
    tok.save(str(out / "tokenizer.json"))
    (out / "chat_template.jinja").write_text(TEMPLATE)
    decoder = {str(i): dict(content=s, lstrip=False, normalized=False, rstrip=False, single_word=False, special=True) for i, s in enumerate(SPECIAL)}
    (out / "tokenizer_config.json").write_text(json.dumps(dict(
        add_bos_token=False, add_prefix_space=False, added_tokens_decoder=decoder, bos_token=None, clean_up_tokenization_spaces=False,
        eos_token="<|im_end|>", model_max_length=2048, pad_token="<|endoftext|>", tokenizer_class="PreTrainedTokenizerFast"), indent=2) + "\n")


def put(path, array):
    with lzma.open(path, "wb", preset=4) as f:
        f.write(np.asarray(array, dtype=np.uint16).tobytes())


def encode(tok, texts, step=2000):
    for i in range(0, len(texts), step):
        for e in tok.encode_batch_fast(texts[i:i + step]):
            yield np.array(e.ids, dtype=np.uint16)


def put_documents(tok, texts, out, name):
    docs = [d for d in encode(tok, texts) if len(d) <= LIMIT]
    put(out / f"{name}.tokens.xz", np.concatenate(docs))
    put(out / f"{name}.sizes.xz", [len(d) for d in docs])
    print(name, len(docs), "documents", sum(map(len, docs)), "tokens", flush=True)


def put_windows(tok, books, out, name):
    """Books as one stream, each followed by the end token; cut into pieces of some paragraphs for the tokenizer."""
    pieces = []
    for _, _, text in books:
        lines = text.split("\n")
        parts = ["\n".join(lines[i:i + 50]) + "\n" for i in range(0, len(lines), 50)]
        parts[-1] += SPECIAL[0]
        pieces += parts
    tokens = np.concatenate(list(encode(tok, pieces, 200)))
    put(out / f"{name}.tokens.xz", tokens)
    print(name, len(books), "books", len(tokens), "tokens", flush=True)


def continuations(rng, books, count):
    out = []
    while len(out) < count:
        lines = rng.choice(books)[2].split("\n")
        at, piece = rng.randrange(len(lines)), []
        while at < len(lines) and sum(map(len, piece)) + len(lines[at]) < 1700:
            piece.append(lines[at])
            at += 1
        text = chat.continuation(rng, piece)
        if text:
            out.append(text)
    return out


def hold_out(books, want=75_000):
    """Whole books of about `want` bytes: one for the young, one other."""
    size = lambda b: abs(len(b[2]) - want)
    return min((b for b in books if is_young(b[0]) and "Kipling" not in b[0]), key=size), min((b for b in books if not is_young(b[0])), key=size)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("books")
    ap.add_argument("table")
    ap.add_argument("corpus", type=Path)
    ap.add_argument("model", type=Path)
    ap.add_argument("--tales", type=int, default=180000)
    ap.add_argument("--processes", type=int, default=2)
    ap.add_argument("--book-bytes", type=int, default=110_000_000, help="of the simplest books; keeps the corpus small enough to move")
    a = ap.parse_args()
    a.corpus.mkdir(parents=True, exist_ok=True)
    rng = random.Random(7)
    books, total = [], 0
    for b in load_books(a.books, a.table):
        total += len(b[2])
        if total <= a.book_bytes or is_young(b[0]):
            books.append(b)
    held = hold_out(books)
    books = [b for b in books if b not in held]
    young, other = [b for b in books if is_young(b[0])], [b for b in books if not is_young(b[0])]
    print("held out:", [(h[0], h[1], len(h[2])) for h in held], "young MB", sum(len(b[2]) for b in young) / 1e6, flush=True)
    jobs = [(1000 + i, 2000) for i in range(a.tales // 2000)]
    with ProcessPoolExecutor(a.processes) as pool:
        documents = [d for part in pool.map(make_tales, jobs) for d in part]
    print(len(documents), "tales", flush=True)
    rng.shuffle(documents)
    sample = [b[2][:40_000] for b in young] + [b[2][:25_000] for b in other]
    tok = train_tokenizer([d.replace(SPECIAL[0], "").replace(SPECIAL[1], "").replace(SPECIAL[2], "") for d in documents[:10_000]] + sample)
    save_tokenizer(tok, a.model)
    put_documents(tok, documents, a.corpus, "tales")
    talk = [chat.small_talk(rng) for _ in range(3000)]
    put_documents(tok, continuations(rng, young * 3 + other, 25_000) + talk, a.corpus, "talk")
    put_windows(tok, young, a.corpus, "young")
    put_windows(tok, other, a.corpus, "books")
    tests = [t["text"] for t in (tale(random.Random(5_000_000 + i)) for i in range(50))]
    write_held(tok, a, tests, held)
    mix = dict(tales=("documents", 48), young=("windows", 24), books=("windows", 18), talk=("documents", 10))
    (a.corpus / "mix.json").write_text(json.dumps({n: dict(kind=k, share=s) for n, (k, s) in mix.items()}))


def write_held(tok, a, tests, held):
    """heldout.txt: all held-out documents, each ended by the end token; and their tokens by domain."""
    parts = dict(tales=tests, young=[held[0][2]], books=[held[1][2]])
    (a.model / "heldout.txt").write_text("".join(t + "\n" + SPECIAL[0] + "\n" for texts in parts.values() for t in texts))
    for name, texts in parts.items():
        put(a.corpus / f"{name}.held.xz", np.concatenate(list(encode(tok, [t + SPECIAL[0] for t in texts]))))


if __name__ == "__main__":
    main()
