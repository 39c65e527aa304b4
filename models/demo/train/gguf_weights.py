"""A small reader for GGUF files (version 3): metadata, and tensors as float32.

Only the block formats that the story writer's teacher uses are decoded (F32, F16, Q4_0, Q4_1, Q8_0).
"""
import struct

import numpy as np

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
# ggml type id -> (weights in a block, bytes in a block)
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34)}


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def scalar(self, fmt):
        value = struct.unpack_from("<" + fmt, self.data, self.at)[0]
        self.at += struct.calcsize("<" + fmt)
        return value

    def string(self):
        length = self.scalar("Q")
        self.at += length
        return bytes(self.data[self.at - length:self.at]).decode()

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            item, count = self.scalar("I"), self.scalar("Q")
            return [self.value(item) for _ in range(count)]
        return self.scalar(SCALARS[kind])


def halves(blocks, column):
    """The f16 stored at byte `column` of every block, as a float32 column."""
    return blocks[:, column:column + 2].copy().view(np.float16).astype(np.float32)


def decode(kind, raw):
    """Raw bytes of one tensor -> flat float32 array."""
    if kind == 0:
        return raw.view(np.float32)
    if kind == 1:
        return raw.view(np.float16).astype(np.float32)
    blocks = raw.reshape(-1, BLOCKS[kind][1])
    scale = halves(blocks, 0)
    if kind == 8:
        return (scale * blocks[:, 2:].view(np.int8)).ravel()
    nibbles = blocks[:, 2 if kind == 2 else 4:]
    # The low nibbles are the first half of a block, the high nibbles the second half.
    q = np.concatenate([nibbles & 15, nibbles >> 4], axis=1).astype(np.float32)
    return (scale * (q - 8) if kind == 2 else scale * q + halves(blocks, 2)).ravel()


def read(path):
    """-> (metadata dict, {tensor name: float32 array with the outermost dimension first})"""
    data = np.fromfile(path, dtype=np.uint8)
    cur = Cursor(memoryview(data))
    assert cur.scalar("I") == 0x46554747, "not a GGUF file"
    assert cur.scalar("I") == 3
    tensors, pairs = cur.scalar("Q"), cur.scalar("Q")
    meta = {}
    for _ in range(pairs):
        key = cur.string()
        meta[key] = cur.value(cur.scalar("I"))
    infos = []
    for _ in range(tensors):
        name = cur.string()
        dims = [cur.scalar("Q") for _ in range(cur.scalar("I"))]
        infos.append((name, dims[::-1], cur.scalar("I"), cur.scalar("Q")))
    align = meta.get("general.alignment", 32)
    start = -(-cur.at // align) * align
    out = {}
    for name, shape, kind, offset in infos:
        weights, size = BLOCKS[kind]
        count = int(np.prod(shape)) // weights * size
        raw = data[start + offset:start + offset + count]
        out[name] = decode(kind, raw).reshape(shape)
    return meta, out
