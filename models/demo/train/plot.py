"""The loss curve of log.csv as a picture: python plot.py log.csv loss.png"""
import csv
import sys

import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main():
    rows = list(csv.DictReader(open(sys.argv[1])))
    x = [int(r["tokens"]) / 1e6 for r in rows]
    plt.figure(figsize=(8, 4.5))
    for i, (name, label) in enumerate(dict(tales="tales", young="children's books", books="other books").items()):
        plt.plot(x, [float(r[name]) for r in rows], color=f"C{i}", label=label)
        held = [(a, float(r["held_" + name])) for a, r in zip(x, rows) if r["held_" + name]]
        plt.plot(*zip(*held), "o--", color=f"C{i}", ms=3, lw=0.8, label=label + ", held out")
    plt.xlabel("million tokens")
    plt.ylabel("cross entropy, nats per token")
    plt.grid(alpha=0.3)
    plt.legend(fontsize=8)
    plt.tight_layout()
    plt.savefig(sys.argv[2], dpi=110)


if __name__ == "__main__":
    main()
