"""Perplexity of the held-out documents by domain, and the load of the experts, by transformers in float32.

Each document is scored alone, in windows of 512 tokens that overlap by half: only what a window adds is counted.
"""
import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import Qwen3_5MoeForCausalLM

END = "<|endoftext|>"
DOMAINS = {"tales": slice(0, 50), "young": slice(50, 51), "books": slice(51, 52)}


def documents(path):
    return [d.strip("\n") for d in Path(path).read_text().split(END + "\n") if d.strip()]


def windows(ids, context, stride):
    """-> (tokens, how many of the window's predictions an earlier window has already counted)"""
    out, seen = [], 1
    for start in range(0, len(ids), stride):
        out.append((ids[start:start + context], max(0, seen - start - 1)))
        seen = start + len(out[-1][0])
        if seen >= len(ids):
            return out


class Scorer:
    """Sums negative log likelihoods, and counts how often each expert of each layer is chosen."""

    def __init__(self, model):
        self.model, c = model, model.config
        self.load = torch.zeros(c.num_hidden_layers, c.num_experts)
        for i, layer in enumerate(model.model.layers):
            layer.mlp.gate.register_forward_hook(self.watch(i))

    def watch(self, i):
        def see(module, args, out):
            c = self.model.config
            logits = F.linear(args[0].reshape(-1, c.hidden_size), module.weight)[self.real]
            self.load[i] += torch.bincount(logits.topk(c.num_experts_per_tok).indices.flatten(), minlength=c.num_experts)
        return see

    @torch.no_grad()
    def score(self, batch):
        """Windows of several lengths at once: padding on the right changes nothing to its left."""
        longest = max(len(w) for w, _ in batch)
        ids = torch.tensor([w + [0] * (longest - len(w)) for w, _ in batch])
        self.real = torch.tensor([[j < len(w) for j in range(longest)] for w, _ in batch]).flatten()
        losses = F.cross_entropy(self.model(input_ids=ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(batch), -1)
        fresh = [row[done:len(w) - 1] for row, (w, done) in zip(losses, batch)]
        return sum(f.sum().item() for f in fresh), sum(len(f) for f in fresh)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("model")
    ap.add_argument("text")
    ap.add_argument("--context", type=int, default=512)
    ap.add_argument("--stride", type=int, default=256)
    a = ap.parse_args()
    tok = Tokenizer.from_file(a.model + "/tokenizer.json")
    model = Qwen3_5MoeForCausalLM.from_pretrained(a.model, dtype=torch.float32).eval()
    texts = documents(a.text)
    print(len(texts), "documents; context", a.context, "stride", a.stride)
    sums, scorer = {}, Scorer(model)
    for name, which in DOMAINS.items():
        scorer.load.zero_()
        every = sorted((w for t in texts[which] for w in windows(tok.encode(t + END).ids, a.context, a.stride)), key=lambda w: len(w[0]))
        parts = [scorer.score(every[i:i + 8]) for i in range(0, len(every), 8)]
        nll, n = (sum(x) for x in zip(*parts))
        sums[name] = (nll, n)
        share = scorer.load / scorer.load.mean(1, keepdim=True)
        print(f"{name}: perplexity {math.exp(nll / n):.3f}, {n} tokens; expert load / mean: min {share.min():.2f} max {share.max():.2f}", flush=True)
    nll, n = (sum(x) for x in zip(*sums.values()))
    print(f"total: perplexity {math.exp(nll / n):.3f}, {n} tokens")


if __name__ == "__main__":
    main()
