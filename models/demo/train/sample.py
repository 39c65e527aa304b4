"""Text from the stored model, by transformers: python sample.py MODEL "Once upon a time" [--count 3]"""
import argparse

import torch
from transformers import AutoTokenizer, Qwen3_5MoeForCausalLM


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("model")
    ap.add_argument("prompts", nargs="+")
    ap.add_argument("--count", type=int, default=1)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--tokens", type=int, default=450)
    a = ap.parse_args()
    tok = AutoTokenizer.from_pretrained(a.model)
    model = Qwen3_5MoeForCausalLM.from_pretrained(a.model, dtype=torch.float32).eval()
    torch.manual_seed(a.seed)
    for prompt in a.prompts:
        ids = tok.apply_chat_template([dict(role="user", content=prompt)], add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = model.generate(**ids, num_return_sequences=a.count, max_new_tokens=a.tokens)
        for row in out:
            new = row[ids["input_ids"].shape[1]:].tolist()
            ended = any(e in new for e in model.generation_config.eos_token_id)
            print(f"### {prompt}\n{tok.decode(new, skip_special_tokens=True).strip()}\n[{'ended by itself' if ended else 'cut'}]\n", flush=True)


if __name__ == "__main__":
    main()
