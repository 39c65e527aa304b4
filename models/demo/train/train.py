"""Train the demo model for a given number of seconds; resume until --total seconds are spent.

  python train.py corpus/ state.pt out/ --seconds 520 --total 1000
"""
import argparse
import csv
import io
import json
import lzma
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from model import Config, Model
from optim import Optimizer

SLACK = 32  # a document that would get fewer tokens than this at the end of a row is left for the next row


def load_array(path):
    with lzma.open(path) as f:
        return np.frombuffer(f.read(), dtype=np.uint16)


class Documents:
    """Rows of whole short documents in random order; every row begins at the beginning of a document."""

    def __init__(self, folder, name, length, device):
        tokens, sizes = load_array(folder / f"{name}.tokens.xz"), load_array(folder / f"{name}.sizes.xz")
        self.tokens = torch.from_numpy(tokens.astype(np.int32)).to(device)
        self.sizes = torch.from_numpy(sizes.astype(np.int64)).to(device)
        self.starts = self.sizes.cumsum(0) - self.sizes
        self.length, self.epochs = length, 0
        self.shuffle()

    def shuffle(self):
        order = torch.randperm(len(self.sizes), device=self.sizes.device)
        size, start = self.sizes[order], self.starts[order]
        begin = size.cumsum(0) - size
        move = torch.repeat_interleave(start - begin, size)
        self.stream = self.tokens[move + torch.arange(len(move), device=move.device)]
        begins = begin.cpu().numpy()
        follow = np.searchsorted(begins, begins + self.length + 1 - SLACK)
        at, self.offsets = 0, []
        while at < len(begins) and begins[at] + self.length + 1 <= len(move):
            self.offsets.append(int(begins[at]))
            at = follow[at]
        self.next = 0
        self.epochs += 1

    def rows(self, count):
        if self.next + count > len(self.offsets):
            self.shuffle()
        part = self.offsets[self.next:self.next + count]
        self.next += count
        at = torch.tensor(part, dtype=torch.long, device=self.stream.device)[:, None] + torch.arange(self.length + 1, device=self.stream.device)
        return self.stream[at].long()


class Windows:
    """Rows at random places of one long text."""

    def __init__(self, folder, name, length, device):
        self.tokens = torch.from_numpy(load_array(folder / f"{name}.tokens.xz").astype(np.int32)).to(device)
        self.length, self.drawn = length, 0

    @property
    def epochs(self):
        return self.drawn / len(self.tokens)

    def rows(self, count):
        self.drawn += count * self.length
        at = torch.randint(0, len(self.tokens) - self.length - 1, (count, 1), device=self.tokens.device)
        return self.tokens[at + torch.arange(self.length + 1, device=at.device)].long()


def open_sources(folder, length, device):
    """mix.json: {name: {"kind": "documents" | "windows", "share": rows of a hundred}}"""
    mix = json.loads((folder / "mix.json").read_text())
    make = lambda n: {"documents": Documents, "windows": Windows}[mix[n]["kind"]](folder, n, length, device)
    with ThreadPoolExecutor() as pool:
        return dict(zip(mix, pool.map(make, mix))), {n: m["share"] for n, m in mix.items()}


def head_loss(x, embed, targets):
    """Mean cross entropy of each row."""
    logits = F.linear(x, embed.to(x.dtype)).float()
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape).mean(1)


class Trainer:
    def __init__(self, a, device):
        self.a, self.device = a, device
        torch.manual_seed(a.seed)
        torch.set_float32_matmul_precision("high")
        self.model = Model(Config()).to(device)
        self.opt = Optimizer(self.model, a.muon_lr, a.adam_lr, fused=device == "cuda")
        self.spent, self.steps, self.log = 0.0, 0, []
        if Path(a.state).exists():
            s = torch.load(a.state, map_location=device, weights_only=False)
            self.model.load_state_dict(s["model"])
            self.opt.load(s["opt"])
            self.spent, self.steps, self.log = s["spent"], s["steps"], s["log"]
            torch.manual_seed(a.seed + self.steps)
        self.head = head_loss
        if device == "cuda" and not a.eager:
            torch._dynamo.config.recompile_limit = 64
            # Layer by layer: two small graphs (attention, DeltaNet) are compiled once and shared.
            for layer in self.model.model.layers:
                layer.compile(dynamic=False)
            self.head = torch.compile(head_loss, dynamic=False)

    def losses(self, rows):
        with torch.autocast(self.device, dtype=torch.bfloat16):
            x, balance, z, loads = self.model.hidden(rows[:, :-1])
            return self.head(x, self.model.model.embed_tokens.weight, rows[:, 1:].contiguous()), balance, z, loads

    def scale(self, done):
        """Learning-rate factor when the fraction `done` of the whole time is spent: 2 % warm-up, then cosine to 2 %."""
        if done < 0.02:
            return 0.02 + done / 0.02
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (done - 0.02) / 0.98)))

    def step(self, rows, done):
        loss, balance, z, loads = self.losses(rows)
        (loss.mean() + self.a.balance * balance + 1e-3 * z).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.opt.step(self.scale(done))
        self.steps += 1
        return loss.detach(), norm.detach(), balance.detach(), loads.detach()

    def save(self, out):
        torch.save(dict(model=self.model.state_dict(), opt=self.opt.state(), spent=self.spent, steps=self.steps, log=self.log), self.a.state)
        memory = io.BytesIO()
        torch.save({k: v.to(torch.bfloat16) for k, v in self.model.state_dict().items()}, memory)
        data = memory.getvalue()
        # In pieces, because files of this size do not travel everywhere.
        for i in range(0, len(data), 15_000_000):
            (out / f"weights.pt.{i // 15_000_000}").write_bytes(data[i:i + 15_000_000])
        with open(out / "log.csv", "w", newline="") as f:
            w = csv.DictWriter(f, fieldnames=list(self.log[-1]) if self.log else [], restval="")
            w.writeheader()
            w.writerows(self.log)


def counts(share, rows):
    """Rows of each source in a batch, in proportion to its share."""
    out = {n: round(rows * s / sum(share.values())) for n, s in share.items()}
    first = next(iter(out))
    out[first] += rows - sum(out.values())
    return out


@torch.no_grad()
def validate(trainer, held):
    """Mean loss on the held-out rows of each source."""
    return {f"held_{n}": round(torch.cat([trainer.losses(part)[0] for part in rows.split(trainer.a.rows)]).mean().item(), 4)
            for n, rows in held.items()}


def held_rows(folder, length, rows, device):
    """Held-out tokens of each source as exactly `rows` rows (repeated if need be: one batch shape, one compilation)."""
    out = {}
    for path in sorted(folder.glob("*.held.xz")):
        tokens = torch.from_numpy(load_array(path).astype(np.int64)).to(device)
        n = (len(tokens) - 1) // length
        at = (torch.arange(rows, device=device) % n)[:, None] * length + torch.arange(length + 1, device=device)
        out[path.name.split(".")[0]] = tokens[at]
    return out


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("corpus", type=Path)
    ap.add_argument("state")
    ap.add_argument("out", type=Path)
    ap.add_argument("--seconds", type=float, default=520, help="stop this call after so long, whatever the schedule")
    ap.add_argument("--total", type=float, default=1000, help="training seconds of the whole schedule, without start-up")
    ap.add_argument("--rows", type=int, default=256)
    ap.add_argument("--length", type=int, default=512)
    ap.add_argument("--muon-lr", type=float, default=4e-3)
    ap.add_argument("--adam-lr", type=float, default=3e-3)
    ap.add_argument("--balance", type=float, default=0.005)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--eager", action="store_true")
    a = ap.parse_args()
    began = time.time()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a.out.mkdir(parents=True, exist_ok=True)
    t = Trainer(a, device)
    sources, share = open_sources(a.corpus, a.length, device)
    part = counts(share, a.rows)
    held = held_rows(a.corpus, a.length, a.rows, device)
    print(f"loaded after {time.time() - began:.0f} s; rows {part}; {sum(p.numel() for p in t.model.parameters())} parameters", flush=True)
    batch = lambda: torch.cat([sources[n].rows(c) for n, c in part.items()])
    t.losses(batch())[0].mean().backward()  # compile before the clock starts
    t.opt.adam.zero_grad()
    for p in t.opt.muon.params:
        p.grad = None
    validate(t, held)
    print(f"compiled after {time.time() - began:.0f} s", flush=True)
    clock, before, last = time.time(), t.spent, (time.time(), t.steps)
    while True:
        t.spent = before + time.time() - clock
        if t.spent >= a.total or time.time() - began > a.seconds:
            break
        loss, norm, balance, loads = t.step(batch(), t.spent / a.total)
        if t.steps % 10 == 0:
            loss.sum().item()  # keep the host from running far ahead of the clock
        if t.steps % 100 == 0:
            now = time.time()
            row = dict(step=t.steps, seconds=round(t.spent, 1), tokens=t.steps * a.rows * a.length, lr=round(t.scale(t.spent / a.total), 4),
                       loss=round(loss.mean().item(), 4))
            row.update({n: round(x.mean().item(), 4) for n, x in zip(part, loss.split(list(part.values())))})
            row.update(grad_norm=round(norm.item(), 3), balance=round(balance.item() / 10, 4), load_min=round(loads.min().item() * 32, 3),
                       load_max=round(loads.max().item() * 32, 3))
            row.update(validate(t, held) if t.steps % 500 == 0 else {f"held_{n}": "" for n in held})
            t.log.append(row)
            if t.steps >= 300 and not row["loss"] < 6:
                raise SystemExit("the loss does not fall: stopped so as not to waste machine time")
            print(row, f"{(t.steps - last[1]) * a.rows * a.length / (now - last[0]):.0f} tokens/s", flush=True)
            last = (time.time(), t.steps)
    print("held-out:", validate(t, held), "epochs:", {n: round(s.epochs, 2) for n, s in sources.items()}, flush=True)
    t.save(a.out)
    print(f"{t.steps} steps, {t.spent:.0f} of {a.total:.0f} s spent, saved after {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
