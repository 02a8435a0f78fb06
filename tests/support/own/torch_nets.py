"""The networks of nets.py in PyTorch, as functions of the same weights and of images [N, H, W, C]."""

import torch
import torch.nn.functional as F


def conv(x, p, stride=1, padding=0, groups=1):
    """A convolution of images [N, C, H, W] with a kernel [K, K, C, F]."""
    return F.conv2d(x, p["kernel"].permute(3, 2, 0, 1), p.get("bias"), stride, padding, 1, groups)


def norm(x, p):
    """Batch norm in training, with Flax's epsilon."""
    return F.batch_norm(x, None, None, p["scale"], p["bias"], training=True, eps=1e-5)


def dense(x, p):
    """An affine map."""
    return x @ p["kernel"] + p["bias"]


def layer_norm(x, p):
    """Layer norm over the last axis."""
    return F.layer_norm(x, x.shape[-1:], p["scale"], p["bias"], eps=1e-6)


def resnet(p, x):
    """nets.ResNet without dropout."""
    norms = iter(f"BatchNorm_{n}" for n in range(6))
    convs = iter(f"Conv_{n}" for n in range(6))
    x = F.relu(norm(conv(x.permute(0, 3, 1, 2), p[next(convs)], 1, 1), p[next(norms)]))
    for stride in (1, 2):
        y = F.relu(norm(conv(x, p[next(convs)], stride, 1), p[next(norms)]))
        y = norm(conv(y, p[next(convs)], 1, 1), p[next(norms)])
        if x.shape != y.shape:
            x = norm(conv(x, p[next(convs)], stride), p[next(norms)])
        x = F.relu(x + y)
    return dense(x.mean((2, 3)), p["Dense_0"])


def depthwise(p, x):
    """nets.Depthwise."""
    x = F.gelu(conv(x.permute(0, 3, 1, 2), p["Conv_0"], 1, 1), approximate="tanh")
    x = conv(x, p["Conv_1"], 1, 1, 8)
    x = F.max_pool2d(F.gelu(conv(x, p["Conv_2"]), approximate="tanh"), 2)
    return dense(x.permute(0, 2, 3, 1).flatten(1), p["Dense_0"])


def vit(p, x):
    """nets.ViT."""
    x = conv(x.permute(0, 3, 1, 2), p["Conv_0"], 4).permute(0, 2, 3, 1)
    x = x.reshape(len(x), -1, 8) + p["place"]
    attention, normed = p["MultiHeadDotProductAttention_0"], layer_norm(x, p["LayerNorm_0"])

    def heads(name):
        return torch.einsum("nld,dhk->nhlk", normed, attention[name]["kernel"]) + attention[name]["bias"][:, None]

    mixed = F.scaled_dot_product_attention(heads("query"), heads("key"), heads("value"))
    x = x + torch.einsum("nhlk,hkd->nld", mixed, attention["out"]["kernel"]) + attention["out"]["bias"]
    hidden = F.gelu(dense(layer_norm(x, p["LayerNorm_1"]), p["Dense_1"]), approximate="tanh")
    return dense((x + dense(hidden, p["Dense_0"])).mean(1), p["Dense_2"])


def small(p, x):
    """nets.Small without dropout."""
    x = F.relu(norm(conv(x.permute(0, 3, 1, 2), p["conv"], 1, 1), p["norm"]))
    return dense(x.mean((2, 3)), p["out"])
