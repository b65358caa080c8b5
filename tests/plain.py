"""The published equations in plain float64 loops: references for the tests of the methods' steps."""

import copy
import math

import numpy as np
import torch
from torch import nn


def features(method, images):
    """h of one pass of the encoder in float64 (B x D), in the method's current mode; the method is unchanged."""
    with torch.no_grad():
        return copy.deepcopy(method.encoder).double()(images.double()).numpy()


def linear(h, layer):
    weight = layer.weight.detach().double().numpy()
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().numpy()
    return np.array([[sum(w * x for w, x in zip(weight[k], row)) + bias[k] for k in range(len(weight))] for row in h])


def batch_norm(h, layer):
    """Batch statistics in training mode, running statistics in evaluation mode."""
    out = np.array(h)
    for d in range(h.shape[1]):
        if layer.training:
            mean = sum(h[:, d]) / len(h)
            variance = sum((x - mean) ** 2 for x in h[:, d]) / len(h)
        else:
            mean, variance = layer.running_mean[d].item(), layer.running_var[d].item()
        scale, shift = (1.0, 0.0) if layer.weight is None else (layer.weight[d].item(), layer.bias[d].item())
        out[:, d] = [(x - mean) / math.sqrt(variance + layer.eps) * scale + shift for x in h[:, d]]
    return out


def projected(h, head):
    """z on the unit sphere: linear layers, batch norms and ReLUs one by one, then z / |z|."""
    for layer in head:
        if isinstance(layer, nn.ReLU):
            h = np.array([[max(x, 0.0) for x in row] for row in h])
        else:
            h = batch_norm(h, layer) if isinstance(layer, nn.BatchNorm1d) else linear(h, layer)
    return unit(h)


def unit(z):
    return np.array([row / math.sqrt(sum(x * x for x in row)) for row in z])


def softmax(logits):
    weights = [[math.exp(x - max(row)) for x in row] for row in logits]
    return np.array([[w / sum(row) for w in row] for row in weights])


def entropy_of_mean(p):
    """H(mean over the batch of p), in nats."""
    mean = [sum(row[k] for row in p) / len(p) for k in range(p.shape[1])]
    return -sum(m * math.log(m) for m in mean)


def nt_xent(z1, z2, temperature, anchors="both"):
    z, batch, total = np.concatenate([z1, z2]), len(z1), 0.0
    count = 2 * batch if anchors == "both" else batch
    for i in range(count):
        others = sum(math.exp(z[i] @ z[j] / temperature) for j in range(2 * batch) if j != i)
        total -= math.log(math.exp(z[i] @ z[(i + batch) % (2 * batch)] / temperature) / others)
    return total / count


def agreement(p, q):
    """- mean log <p, q>."""
    return -sum(math.log(sum(a * b for a, b in zip(*rows))) for rows in zip(p, q)) / len(p)


# --- SCL, numbered as in docs/methods.md ------------------------------------------------------------------------


def decisions(z, prototypes, temperature):
    """[1] q: B x K."""
    return softmax([[sum(a * b for a, b in zip(row, c)) / temperature for c in prototypes] for row in z])


def similarities(z, index, memory, temperature):
    """[2] p of the images at the positions `index`: B x K."""
    rows, classes = memory.rows.double().numpy(), memory.pseudo_classes.tolist()
    p = np.zeros((len(z), memory.clusters))
    for b, i in enumerate(index.tolist()):
        for j in range(len(rows)):
            if j != i and classes[j] < memory.clusters:
                p[b, classes[j]] += math.exp(z[b] @ rows[j] / temperature)
        p[b] /= p[b].sum()
    return p


def mean_similarities(z, index, memory, temperature):
    """[3] s of the images at the positions `index`: B x K. Every class has other images; class K means not seen yet."""
    rows, classes = memory.rows.double().numpy(), memory.pseudo_classes.tolist()
    s = []
    for row, i in zip(z, index.tolist()):
        of_class = [[] for _ in range(memory.clusters)]
        for j in range(len(rows)):
            if j != i and classes[j] < memory.clusters:
                of_class[classes[j]].append(math.exp(row @ rows[j] / temperature))
        s.append([sum(values) / len(values) for values in of_class])
    return np.array(s) / np.array(s).sum(1, keepdims=True)


def consensus(*four):
    """[3] The pseudo classes, argmax of r, from the two decisions on both views: B integers."""
    y = []
    for rows in zip(*four):
        r = [math.sqrt(math.prod(row[k] for row in rows)) for k in range(len(rows[0]))]
        y.append(int(np.argmax(np.array(r) / sum(r))))
    return y
