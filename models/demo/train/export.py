"""Turn training weights into a Hugging Face directory (config, shards, generation defaults)."""
import argparse
import json
from pathlib import Path

import torch
from transformers import GenerationConfig, Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig

from model import Config, Model

END, STOP = 2, 0  # <|im_end|>, <|endoftext|>


def hf_config(c, context=2048):
    kinds = ["full_attention" if c.is_full(i) else "linear_attention" for i in range(c.num_hidden_layers)]
    same = ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
            "linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim",
            "linear_conv_kernel_dim", "num_experts", "num_experts_per_tok", "moe_intermediate_size",
            "shared_expert_intermediate_size", "rms_norm_eps"]
    rope = dict(rope_type="default", rope_theta=c.rope_theta, partial_rotary_factor=c.rotary / c.head_dim,
                mrope_section=[3, 3, 2], mrope_interleaved=True)
    return Qwen3_5MoeTextConfig(**{k: getattr(c, k) for k in same}, layer_types=kinds, rope_parameters=rope,
                                max_position_embeddings=context, tie_word_embeddings=True, eos_token_id=[END, STOP],
                                bos_token_id=STOP, pad_token_id=STOP, initializer_range=0.02)


def to_hf(model):
    """The Hugging Face model (float32) with the weights of a training model."""
    hf = Qwen3_5MoeForCausalLM(hf_config(model.c)).eval()
    state = dict(model.state_dict())
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    hf.load_state_dict(state, strict=True)
    return hf


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("weights")
    ap.add_argument("out", type=Path)
    a = ap.parse_args()
    model = Model(Config())
    state = torch.load(a.weights, map_location="cpu")
    model.load_state_dict({k: v.float() for k, v in state.items()})
    hf = to_hf(model).to(torch.bfloat16)
    hf.save_pretrained(a.out, max_shard_size="18MB")
    GenerationConfig(eos_token_id=[END, STOP], bos_token_id=STOP, pad_token_id=STOP, do_sample=True, temperature=0.6,
                     top_k=40, top_p=0.95).save_pretrained(a.out)
    print(json.dumps({f.name: f.stat().st_size for f in sorted(a.out.iterdir()) if f.is_file()}, indent=1))


if __name__ == "__main__":
    main()
