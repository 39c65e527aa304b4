"""Muon for the weight matrices, AdamW for everything else, one schedule for both."""
import torch

ADAM_ONLY = ("embed_tokens", "mlp.gate.", "shared_expert_gate", "in_proj_a", "in_proj_b", "conv1d")


def orthogonal(g):
    """Newton-Schulz: the nearest (semi-)orthogonal matrix to each of a batch [n, rows <= cols], roughly."""
    x = g.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.transpose(-1, -2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


class Muon:
    """Momentum whose update is orthogonalised per matrix (per expert for stacked experts) and scaled to AdamW's size."""

    def __init__(self, named, momentum=0.95, decay=0.1):
        self.momentum, self.decay = momentum, decay
        self.params = [p for _, p in named]
        self.buffers = [torch.zeros_like(p) for p in self.params]
        self.groups = {}
        for i, p in enumerate(self.params):
            self.groups.setdefault(tuple(sorted(self.matrices(p, p).shape[1:])), []).append(i)

    @staticmethod
    def matrices(p, t):
        """View parameter-shaped t as [count, rows, cols]; gate and up of an expert are two matrices."""
        if p.dim() == 2:
            return t.unsqueeze(0)
        return t.view(p.shape[0] * 2, p.shape[1] // 2, p.shape[2]) if p.shape[2] >= p.shape[1] else t

    @torch.no_grad()
    def step(self, lr):
        grads = [p.grad for p in self.params]
        torch._foreach_lerp_(self.buffers, grads, 1 - self.momentum)
        mixed = torch._foreach_lerp(grads, self.buffers, self.momentum)
        torch._foreach_mul_(self.params, 1 - lr * self.decay)
        for shape, members in self.groups.items():
            parts = [self.matrices(self.params[i], mixed[i]) for i in members]
            wide = [x if x.shape[1] <= x.shape[2] else x.transpose(1, 2) for x in parts]
            done = orthogonal(torch.cat(wide)).split([x.shape[0] for x in parts])
            for i, x, o in zip(members, parts, done):
                o = o if x.shape[1] <= x.shape[2] else o.transpose(1, 2)
                self.params[i].add_(o.reshape(self.params[i].shape).to(x.dtype), alpha=-lr * 0.2 * max(shape) ** 0.5)


class Optimizer:
    def __init__(self, model, muon_lr, adam_lr, fused):
        named = list(model.named_parameters())
        matrix = lambda n, p: p.dim() >= 2 and not any(a in n for a in ADAM_ONLY)
        self.muon = Muon([(n, p) for n, p in named if matrix(n, p)])
        rest = [(n, p) for n, p in named if not matrix(n, p)]
        groups = [dict(params=[p for _, p in rest if p.dim() >= 2], weight_decay=0.1),
                  dict(params=[p for _, p in rest if p.dim() < 2], weight_decay=0.0)]
        self.adam = torch.optim.AdamW(groups, lr=adam_lr, betas=(0.9, 0.95), eps=1e-10, fused=fused)
        self.muon_lr, self.adam_lr = muon_lr, adam_lr

    def step(self, scale):
        for g in self.adam.param_groups:
            g["lr"] = self.adam_lr * scale
        self.adam.step()
        self.muon.step(self.muon_lr * scale)
        self.adam.zero_grad(set_to_none=True)
        for p in self.muon.params:
            p.grad = None

    def state(self):
        return dict(adam=self.adam.state_dict(), muon=self.muon.buffers)

    def load(self, state):
        self.adam.load_state_dict(state["adam"])
        for b, s in zip(self.muon.buffers, state["muon"]):
            b.copy_(s)
