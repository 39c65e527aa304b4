"""Average two checkpoints: python average.py a.pt b.pt out.pt

The second half of training had begun to learn the children's books by heart; the mean of the checkpoint at half time and
the last one predicts held-out books better than the last one does, at no cost for the tales.
"""
import sys

import torch


def main():
    first, second = (torch.load(p, map_location="cpu") for p in sys.argv[1:3])
    torch.save({k: ((v.float() + second[k].float()) / 2).to(torch.bfloat16) for k, v in first.items()}, sys.argv[3])


if __name__ == "__main__":
    main()
