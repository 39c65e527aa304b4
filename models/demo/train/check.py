"""Does the training implementation give the logits of transformers' own implementation? Random weights, or --weights."""
import argparse

import torch

from export import to_hf
from model import Config, Model


def shake(model):
    """Random norms, gates and steps, so that a wrong (1+w), order or scale shows."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(torch.randn_like(p) * (0.3 if p.dim() == 1 else 0.05))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--weights")
    a = ap.parse_args()
    torch.manual_seed(0)
    c = Config()
    model = Model(c).eval()
    if a.weights:
        model.load_state_dict({k: v.float() for k, v in torch.load(a.weights, map_location="cpu").items()})
    else:
        shake(model)
    hf = to_hf(model)
    ids = torch.randint(0, c.vocab_size, (2, 192))
    with torch.no_grad():
        mine, theirs = model(ids), hf(input_ids=ids).logits
    diff = (mine - theirs).abs()
    print(f"{sum(p.numel() for p in model.parameters())} parameters; logits std {theirs.std():.3f}; "
          f"difference mean {diff.mean():.2e} max {diff.max():.2e}; argmax equal {(mine.argmax(-1) == theirs.argmax(-1)).float().mean():.4f}")
    assert diff.mean() < 1e-3


if __name__ == "__main__":
    main()
