"""Makes blocks.bin: random blocks of each quantised format and what the `gguf` package decodes them to.

    pip install gguf==0.19.0 && python make_blocks.py

blocks.bin is, for each format in the order below: its name padded with spaces to 8 bytes, the number of blocks (u32), the
blocks, and the decoded weights (f32); all little endian.
"""

import struct
from pathlib import Path

import gguf
import numpy as np

# Format, where its half-precision scales lie in a block, number of blocks.
FORMATS = [
    ("Q4_0", [0], 32),
    ("Q5_0", [0], 32),
    ("Q8_0", [0], 32),
    ("Q4_K", [0, 2], 12),
    ("Q6_K", [208], 12),
    ("Q3_K", [108], 12),
    ("Q2_K", [80, 82], 12),
    ("Q5_K", [0, 2], 12),
    ("Q4_1", [0, 2], 32),
    ("Q5_1", [0, 2], 32),
    ("IQ4_NL", [0], 32),
    ("MXFP4", [], 32),
    ("IQ4_XS", [0], 12),
    ("IQ3_XXS", [0], 12),
    ("IQ3_S", [0], 12),
    ("IQ2_XXS", [0], 12),
    ("IQ2_XS", [0], 12),
    ("IQ2_S", [0], 12),
    ("IQ1_S", [0], 12),
    ("IQ1_M", [], 12),
    ("TQ1_0", [52], 12),
    ("TQ2_0", [64], 12),
]
# Scales of every kind a file may have: ordinary, negative, zero, subnormal, largest.
SPECIAL = [0.0, -0.0, 6e-8, -5.96e-8, 6.1e-5, 65504.0, -65504.0, 1.0]


def main():
    rng = np.random.default_rng(20260601)
    out = bytearray()
    for name, scale_offsets, count in FORMATS:
        kind = gguf.GGMLQuantizationType[name]
        _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (count, block_bytes), dtype=np.uint8)
        for offset in scale_offsets:
            scales = (rng.standard_normal(count) * 0.01).astype(np.float16)
            special = min(len(SPECIAL), count - 4)
            scales[:special] = np.roll(SPECIAL, offset)[:special]
            blocks[:, offset : offset + 2] = scales[:, None].view(np.uint8)
        if name == "MXFP4":
            # The exponents whose scale is subnormal, the largest, and what models have.
            blocks[:, 0] = [0, 1, 2, 255] + list(range(100, 128))
        if name == "IQ1_M":
            # Its scale lies in four top nibbles. Clearing a bit of the exponent keeps it finite.
            blocks[:, 55] &= 0xBF
        weights = gguf.quants.dequantize(blocks, kind).astype("<f4")
        out += name.lower().ljust(8).encode() + struct.pack("<I", count) + blocks.tobytes() + weights.tobytes()
    Path(__file__).with_name("blocks.bin").write_bytes(out)
    print(len(out), "bytes")


if __name__ == "__main__":
    main()
