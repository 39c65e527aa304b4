"""Makes iq_grids.bin, the vectors of the iq1, iq2 and iq3 formats, from the `gguf` Python package.

    pip install gguf==0.19.0 && python make_iq_grids.py

The vectors are constants of the formats. Each is packed into a little-endian u16: the number of its element k among the
values that the grid has (`iq_grids.rs` lists them), in bits 2k (grids of 8 elements) or 3k (grids of 4).
"""

from pathlib import Path

import gguf.quants
import numpy as np

GRIDS = ["IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S"]


def main():
    out = bytearray()
    for name in GRIDS:
        quant = getattr(gguf.quants, name)
        quant.init_grid()
        grid = quant.grid.reshape(quant.grid_shape)
        number = np.argmax(grid[..., None] == np.array(quant.grid_map, dtype=np.float32), axis=-1)
        width = {8: 2, 4: 3}[quant.grid_shape[1]]
        packed = (number << (width * np.arange(quant.grid_shape[1]))).sum(axis=-1)
        out += packed.astype("<u2").tobytes()
    Path(__file__).with_name("iq_grids.bin").write_bytes(out)
    print(len(out), "bytes")


if __name__ == "__main__":
    main()
