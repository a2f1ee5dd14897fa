"""The training step of benchmark.py --peer in plain PyTorch: same networks, noise, evidence lower bound and optimizer.

The KL divergence is the paper's closed form in float32, where ours is exact and takes longer. Adam is PyTorch's fused
one, with beta_1 = 0.95 and a separate rate for the noise. Precision is torch.autocast's.
"""

import math

import torch
from torch import nn
from torch.nn import functional

LOW, HIGH = -20.0, 0.0
BOX = (-20.0, 5.0)


class Noise(nn.Module):
    """Multiplies each unit, an index of axis 1, by its own truncated log-normal noise, one sample per call."""

    def __init__(self, units):
        super().__init__()
        self.mu = nn.Parameter(torch.zeros(units))
        self.log_sigma = nn.Parameter(torch.full((units,), -5.0))

    def ends(self):
        sigma = self.log_sigma.exp()
        return (LOW - self.mu) / sigma, (HIGH - self.mu) / sigma, sigma

    def forward(self, x):
        alpha, beta, sigma = self.ends()
        low, high = torch.special.ndtr(alpha), torch.special.ndtr(beta)
        # Of float32's uniform numbers the smallest is 0, where the quantile is infinite.
        u = torch.rand_like(self.mu).clamp(1e-6, 1 - 1e-6)
        theta = (self.mu + sigma * torch.special.ndtri(low + u * (high - low))).clamp(LOW, HIGH).exp()
        return x * theta.to(x.dtype).reshape(-1, *[1] * (x.dim() - 2))

    def kl_divergence(self):
        alpha, beta, sigma = self.ends()
        mass = torch.special.ndtr(beta) - torch.special.ndtr(alpha)
        density = lambda z: torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)  # noqa: E731
        entropy = torch.log(math.sqrt(2 * math.pi * math.e) * sigma * mass)
        return math.log(HIGH - LOW) - entropy - (alpha * density(alpha) - beta * density(beta)) / (2 * mass)


def lenet_fc(unit):
    layers = [nn.Flatten(), unit(784), nn.Linear(784, 500), nn.ReLU(), unit(500), nn.Linear(500, 300), nn.ReLU()]
    return nn.Sequential(*layers, unit(300), nn.Linear(300, 10))


def lenet5(unit):
    first = [nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), unit(20)]
    second = [nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2), unit(50)]
    dense = [nn.Flatten(), unit(800), nn.Linear(800, 500), nn.ReLU(), unit(500), nn.Linear(500, 10)]
    return nn.Sequential(*first, *second, *dense)


def vgglike(unit):
    layers, channels = [], 3
    for block in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)):
        for index, filters in enumerate(block, 1):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] * (index == len(block)) + [unit(filters)]
            channels = filters
    dense = [nn.Flatten(), unit(512), nn.Linear(512, 512), nn.ReLU(), unit(512), nn.Linear(512, 10)]
    return nn.Sequential(*layers, *dense)


NETS = {"lenet-fc": lenet_fc, "lenet5": lenet5, "vgglike": vgglike}


class Step:
    """One network in training.

    Args:
        net: a name of NETS.
        method: "original" or "sbp".
        images, labels: numpy arrays, (N, height, width, channels) uint8 and (N,).
        rate, noise_rate: Adam's.
        bfloat16: whether under autocast to it; else float32.
        compiled: whether through torch.compile.
    """

    def __init__(self, net, method, images, labels, *, batch_size, rate, noise_rate, bfloat16, compiled):
        self.model = NETS[net](Noise if method == "sbp" else lambda units: nn.Identity())
        self.noises = [module for module in self.model if isinstance(module, Noise)]
        self.images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        self.labels = torch.from_numpy(labels).long()
        self.batch_size, self.bfloat16 = batch_size, bfloat16
        noise = [parameter for module in self.noises for parameter in module.parameters()]
        weights = [parameter for parameter in self.model.parameters() if not any(parameter is p for p in noise)]
        groups = [{"params": weights}] + ([{"params": noise, "lr": noise_rate}] if noise else [])
        self.optimizer = torch.optim.Adam(groups, lr=rate, betas=(0.95, 0.999), eps=1e-7, fused=True)
        self.negative_bound = torch.compile(self._negative_bound) if compiled else self._negative_bound

    def _negative_bound(self, images, target):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            logits = self.model(images.float() / 255).float()
        data_term = functional.cross_entropy(logits, target)
        kl = sum((noise.kl_divergence().sum() for noise in self.noises), torch.zeros(()))
        return len(self.labels) * data_term + kl

    def run(self, steps):
        """N steps, each on its part of a new permutation."""
        order = torch.randperm(len(self.labels))
        for step in range(steps):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            loss = self.negative_bound(self.images[chosen], self.labels[chosen])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            with torch.no_grad():
                for parameter in (p for noise in self.noises for p in noise.parameters()):
                    parameter.clamp_(*BOX)
        return float(loss.detach())
