"""The demo model for training: Qwen3.5-MoE text architecture with batched matrix products only.

Parameter names are those of the Hugging Face implementation, so that export is a plain state_dict.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

CHUNK = 64


@dataclass
class Config:
    vocab_size: int = 8192
    hidden_size: int = 256
    num_hidden_layers: int = 10
    full_attention_interval: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    rotary: int = 16
    rope_theta: float = 10000.0
    linear_num_key_heads: int = 2
    linear_num_value_heads: int = 4
    linear_key_head_dim: int = 64
    linear_value_head_dim: int = 64
    linear_conv_kernel_dim: int = 4
    num_experts: int = 32
    num_experts_per_tok: int = 4
    moe_intermediate_size: int = 64
    shared_expert_intermediate_size: int = 128
    rms_norm_eps: float = 1e-6

    def is_full(self, i):
        return (i + 1) % self.full_attention_interval == 0


def linear(rows, cols):
    layer = nn.Linear(cols, rows, bias=False)
    nn.init.normal_(layer.weight, std=0.02)
    return layer


class Norm(nn.Module):
    """RMS norm whose weight is stored minus one."""

    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(size)), eps

    def forward(self, x):
        f = x.float()
        return (f * torch.rsqrt(f.square().mean(-1, keepdim=True) + self.eps) * (1 + self.weight)).to(x.dtype)


def rotate(x, cos, sin):
    """Rotate the first 2*cos.shape[-1] dimensions of x [batch, heads, time, dim], pairs half a block apart."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half:2 * half], x[..., 2 * half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, h, kv, d = c, c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.q_proj = linear(2 * h * d, c.hidden_size)
        self.k_proj, self.v_proj = linear(kv * d, c.hidden_size), linear(kv * d, c.hidden_size)
        self.o_proj = linear(c.hidden_size, h * d)
        self.q_norm, self.k_norm = Norm(d, c.rms_norm_eps), Norm(d, c.rms_norm_eps)

    def forward(self, x, rope):
        c, (batch, time, _) = self.c, x.shape
        q, gate = self.q_proj(x).view(batch, time, c.num_attention_heads, 2 * c.head_dim).chunk(2, -1)
        k, v = (p(x).view(batch, time, c.num_key_value_heads, c.head_dim) for p in (self.k_proj, self.v_proj))
        cos, sin = (r.to(x.dtype) for r in rope)
        q = rotate(self.q_norm(q).transpose(1, 2), cos, sin)
        k = rotate(self.k_norm(k).transpose(1, 2), cos, sin)
        k, v = (t.repeat_interleave(c.num_attention_heads // c.num_key_value_heads, 1) for t in (k, v.transpose(1, 2)))
        o = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), is_causal=True)
        return self.o_proj((o.transpose(1, 2) * torch.sigmoid(gate)).reshape(batch, time, -1))


class UnitLowerInverse(torch.autograd.Function):
    """(I + A)^-1 for strictly lower A [..., n, n], by merging blocks of 1, 2, 4, ... rows.

    With M the inverse of the diagonal blocks and C the part of A that joins two neighbours, the inverse of the
    joined blocks is M - M C M. Unlike the product (I - A)(I + A^2)(I + A^4)... its intermediates stay small
    when keys resemble each other.
    """

    @staticmethod
    def forward(ctx, a):
        n = a.shape[-1]
        i = torch.arange(n, device=a.device)
        m = torch.eye(n, device=a.device, dtype=a.dtype).expand_as(a)
        size = 1
        while size < n:
            joins = (i[:, None] // (2 * size) == i // (2 * size)) & (i[:, None] // size > i // size)
            c = a * joins
            m = m - c if size == 1 else m - m @ (c @ m)
            size *= 2
        ctx.save_for_backward(m)
        return m

    @staticmethod
    def backward(ctx, grad):
        m, = ctx.saved_tensors
        t = m.transpose(-1, -2)
        return -(t @ grad @ t)


def delta_rule(q, k, v, g, beta):
    """Gated delta rule in chunks. q, k [b, key heads, t, dk]; v [b, value heads, t, dv]; g, beta [b, value heads, t]. float32."""
    b, hk, t, dk = k.shape
    hv, dv = v.shape[1], v.shape[-1]
    n, r = t // CHUNK, hv // hk
    q, k = (x.view(b, hk, 1, n, CHUNK, dk) for x in (q, k))
    v = v.view(b, hk, r, n, CHUNK, dv)
    g, beta = (x.view(b, hk, r, n, CHUNK) for x in (g, beta))
    cum = g.cumsum(-1)
    lower = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=v.device).tril()
    # Masked before exp: above the diagonal the exponent is positive and could overflow.
    decay = (cum[..., :, None] - cum[..., None, :]).masked_fill(~lower, -1e4).exp()
    near = k @ k.transpose(-1, -2)
    inv = UnitLowerInverse.apply((beta[..., None] * near * decay).tril(-1))
    u = inv @ (beta[..., None] * v)
    w = inv @ ((beta * cum.exp())[..., None] * k)
    late = ((cum[..., -1:] - cum).exp()[..., None] * k).transpose(-1, -2)
    # One step of the state over a whole chunk is affine: S' = turn S + add.
    eye = torch.eye(dk, device=v.device, dtype=v.dtype)
    turn = cum[..., -1, None, None].exp() * eye - late @ w
    add = late @ u
    state, states = torch.zeros_like(add[:, :, :, 0]), []
    for i in range(n):
        states.append(state)
        state = turn[:, :, :, i] @ state + add[:, :, :, i]
    s = torch.stack(states, 3)
    new = u - w @ s
    o = (cum.exp()[..., None] * q) @ s + (q @ k.transpose(-1, -2) * decay) @ new
    return o.reshape(b, hv, t, dv)


class GatedNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x, z):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight * F.silu(z.float())


class DeltaNet(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        keys, values = c.linear_num_key_heads * c.linear_key_head_dim, c.linear_num_value_heads * c.linear_value_head_dim
        self.split, channels, nv = [keys, keys, values], 2 * keys + values, c.linear_num_value_heads
        self.in_proj_qkv, self.in_proj_z = linear(channels, c.hidden_size), linear(values, c.hidden_size)
        self.in_proj_b, self.in_proj_a = linear(nv, c.hidden_size), linear(nv, c.hidden_size)
        self.conv1d = nn.Conv1d(channels, channels, c.linear_conv_kernel_dim, groups=channels, bias=False)
        self.A_log = nn.Parameter(torch.empty(nv).uniform_(0.01, 16).log())
        step = torch.exp(torch.rand(nv) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
        self.dt_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))
        self.norm = GatedNorm(c.linear_value_head_dim, c.rms_norm_eps)
        self.out_proj = linear(c.hidden_size, values)

    def conv(self, u):
        """Causal depthwise convolution as shifted products, which fuse into one kernel."""
        taps = self.conv1d.weight[:, 0].to(u.dtype)
        width = taps.shape[1]
        padded = F.pad(u, (0, 0, width - 1, 0))
        return F.silu(sum(padded[:, j:j + u.shape[1]] * taps[:, j] for j in range(width)))

    def forward(self, x, rope):
        c, (batch, time, _) = self.c, x.shape
        q, k, v = self.conv(self.in_proj_qkv(x)).split(self.split, -1)
        heads = lambda t, n: t.reshape(batch, time, n, -1).transpose(1, 2).float()
        q, k, v = heads(q, c.linear_num_key_heads), heads(k, c.linear_num_key_heads), heads(v, c.linear_num_value_heads)
        unit = lambda t: t * torch.rsqrt(t.square().sum(-1, keepdim=True) + 1e-6)
        b, a = self.in_proj_b(x).float().transpose(1, 2), self.in_proj_a(x).float().transpose(1, 2)
        g = -self.A_log.exp()[:, None] * F.softplus(a + self.dt_bias[:, None])
        with torch.autocast(x.device.type, enabled=False):
            o = delta_rule(unit(q) / math.sqrt(c.linear_key_head_dim), unit(k), v, g, b.sigmoid())
        z = self.in_proj_z(x).view(batch, time, c.linear_num_value_heads, -1)
        return self.out_proj(self.norm(o.transpose(1, 2), z).to(x.dtype).reshape(batch, time, -1))


class Mlp(nn.Module):
    def __init__(self, hidden, inner):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = linear(inner, hidden), linear(inner, hidden), linear(hidden, inner)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Experts(nn.Module):
    """All experts as one product each way; the routing weights zero what was not chosen.

    Eight times the arithmetic of the sparse form, but at this size the GPU does it faster than gathers.
    """

    def __init__(self, c):
        super().__init__()
        e, f, h = c.num_experts, c.moe_intermediate_size, c.hidden_size
        self.gate_up_proj = nn.Parameter(torch.randn(e, 2 * f, h) * 0.02)
        self.down_proj = nn.Parameter(torch.randn(e, h, f) * 0.02)

    def forward(self, x, weights):
        e, f2, h = self.gate_up_proj.shape
        gate, up = F.linear(x, self.gate_up_proj.view(e * f2, h)).view(-1, e, 2, f2 // 2).unbind(2)
        inner = F.silu(gate) * up * weights[..., None].to(gate.dtype)
        return F.linear(inner.flatten(1), self.down_proj.permute(1, 0, 2).reshape(h, -1))


class Moe(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.k = c.num_experts_per_tok
        self.gate = linear(c.num_experts, c.hidden_size)
        self.experts = Experts(c)
        self.shared_expert = Mlp(c.hidden_size, c.shared_expert_intermediate_size)
        self.shared_expert_gate = linear(1, c.hidden_size)

    def route(self, x):
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.float(), self.gate.weight)
        p = logits.softmax(-1)
        with torch.no_grad():
            # The K-th largest by K passes of max: cheaper than a sort of 32.
            rest = p
            for _ in range(self.k - 1):
                rest = torch.where(rest >= rest.amax(-1, keepdim=True), -1.0, rest)
            chosen = (p >= rest.amax(-1, keepdim=True)).float()
        w = p * chosen
        load = chosen.mean(0) / self.k
        balance = p.shape[-1] * (load * p.mean(0)).sum()
        return w / w.sum(-1, keepdim=True), balance, logits.logsumexp(-1).square().mean(), load

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        w, balance, z, load = self.route(flat)
        y = self.experts(flat, w) + torch.sigmoid(self.shared_expert_gate(flat)) * self.shared_expert(flat)
        return y.view_as(x), balance, z, load


class Layer(nn.Module):
    def __init__(self, c, i):
        super().__init__()
        self.input_layernorm = Norm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = Norm(c.hidden_size, c.rms_norm_eps)
        if c.is_full(i):
            self.self_attn = Attention(c)
        else:
            self.linear_attn = DeltaNet(c)
        self.mixer = "self_attn" if c.is_full(i) else "linear_attn"
        self.mlp = Moe(c)

    def forward(self, x, rope):
        x = x + getattr(self, self.mixer)(self.input_layernorm(x), rope)
        y, balance, z, load = self.mlp(self.post_attention_layernorm(x))
        return x + y, balance, z, load


class Body(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(c, i) for i in range(c.num_hidden_layers))
        self.norm = Norm(c.hidden_size, c.rms_norm_eps)


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, self.model = c, Body(c)
        # Outputs into the residual stream start smaller, the deeper the model.
        shrink = 1 / math.sqrt(2 * c.num_hidden_layers)
        with torch.no_grad():
            for name, p in self.named_parameters():
                if name.endswith(("o_proj.weight", "out_proj.weight", "down_proj.weight", "down_proj")):
                    p.mul_(shrink)

    def rope(self, time, device):
        half = self.c.rotary // 2
        inv = self.c.rope_theta ** (-torch.arange(half, device=device).float() / half)
        angle = torch.arange(time, device=device)[:, None] * inv
        return angle.cos(), angle.sin()

    def hidden(self, ids):
        """-> hidden states after the final norm, summed balance and z losses, expert loads [layers, experts]"""
        x = self.model.embed_tokens(ids)
        rope = self.rope(ids.shape[1], ids.device)
        if torch.is_autocast_enabled(ids.device.type):
            x = x.to(torch.get_autocast_dtype(ids.device.type))
        balance = z = 0.0
        loads = []
        for layer in self.model.layers:
            x, b, zl, load = layer(x, rope)
            balance, z = balance + b, z + zl
            loads.append(load)
        return self.model.norm(x), balance, z, torch.stack(loads)

    def forward(self, ids, targets=None):
        x, balance, z, loads = self.hidden(ids)
        logits = F.linear(x, self.model.embed_tokens.weight)
        if targets is None:
            return logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)
        return loss, balance, z, loads
