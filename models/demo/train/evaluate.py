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


@torch.no_grad()
def score(model, ids, context, stride):
    """-> (sum of negative log likelihoods, tokens counted); the first token of a document is not predicted."""
    total, counted, seen = 0.0, 0, 0
    for start in range(0, len(ids), stride):
        part = torch.tensor(ids[start:start + context])[None]
        logits = model(input_ids=part).logits[0].float()
        loss = F.cross_entropy(logits[:-1], part[0, 1:], reduction="none")
        fresh = loss[max(0, seen - start - 1):] if start else loss
        total, counted, seen = total + fresh.sum().item(), counted + len(fresh), start + part.shape[1]
        if seen >= len(ids):
            break
    return total, counted


def watch_routers(model):
    """Count how often each expert of each layer is chosen."""
    c = model.config
    load = torch.zeros(c.num_hidden_layers, c.num_experts)

    def hook(i):
        def see(module, args, out):
            logits = F.linear(args[0].reshape(-1, c.hidden_size).float(), module.weight.float())
            load[i] += torch.bincount(logits.topk(c.num_experts_per_tok).indices.flatten(), minlength=c.num_experts)
        return see
    for i, layer in enumerate(model.model.layers):
        layer.mlp.gate.register_forward_hook(hook(i))
    return load


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
    sums = {}
    for name, which in DOMAINS.items():
        load = watch_routers(model)
        parts = [score(model, tok.encode(t + END).ids, a.context, a.stride) for t in texts[which]]
        nll, n = (sum(x) for x in zip(*parts))
        sums[name] = (nll, n)
        share = load / load.sum(1, keepdim=True) * load.shape[1]
        print(f"{name}: perplexity {math.exp(nll / n):.3f}, {n} tokens; expert load / mean: min {share.min():.2f} max {share.max():.2f}", flush=True)
    nll, n = (sum(x) for x in zip(*sums.values()))
    print(f"total: perplexity {math.exp(nll / n):.3f}, {n} tokens")


if __name__ == "__main__":
    main()
