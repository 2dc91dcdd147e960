"""Trained PyTorch models, as `export.source` names them: tests.export.torch_models:cnn."""

from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from tests.export.models import Built


def _trained(module: Any, x: Any, y: np.ndarray, steps: int = 40) -> Any:
    import torch

    torch.manual_seed(0)
    for layer in module.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(*x), torch.from_numpy(y)).backward()
        optimizer.step()
    return module


def _digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x.reshape(-1, 1, 8, 8).astype(np.float32) / 16, y


def cnn() -> Built:
    """Images through a small CNN, with dropout that the export must leave out."""
    import torch
    from torch import nn

    x, y = _digits()
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(288, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    return _trained(module, (torch.from_numpy(x[:800]),), y[:800]), x[800:], y[800:]


def exported_program() -> Built:
    import torch

    module, x, y = cnn()
    free = ({0: torch.export.Dim("batch")},)
    return torch.export.export(module.eval(), (torch.from_numpy(x[:2]),), dynamic_shapes=free), x, y


def onnx_program() -> Built:
    import torch

    module, x, y = cnn()
    free = ({0: torch.export.Dim.DYNAMIC},)
    example = (torch.from_numpy(x[:2]),)
    return torch.onnx.export(module.eval(), example, dynamo=True, dynamic_shapes=free, verbose=False), x, y


def tokens() -> Built:
    """Token ids and a mask in, logits and states out."""
    import torch
    from torch import nn

    class Reader(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(50, 16)
            self.read = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
            self.decide = nn.Linear(16, 2)

        def forward(self, ids: Any, mask: Any) -> Any:
            states = self.read(self.embed(ids), src_key_padding_mask=mask)
            return self.decide(states.mean(1)), states

    class Logits(nn.Module):  # type: ignore[misc]
        def __init__(self, reader: Any) -> None:
            super().__init__()
            self.reader = reader

        def forward(self, ids: Any, mask: Any) -> Any:
            return self.reader(ids, mask)[0]

    random = np.random.default_rng(0)
    ids = random.integers(0, 50, (200, 7))
    mask = np.zeros((200, 7), dtype=bool)
    mask[:, 5:] = random.integers(0, 2, (200, 1)).astype(bool)
    label = (ids[:, 0] > 25).astype(np.int64)
    reader = Reader()
    _trained(Logits(reader), (torch.from_numpy(ids), torch.from_numpy(mask)), label, 5)
    return reader, {"ids": ids, "mask": mask}, label


def fixed_batch() -> Built:
    """A module that reshapes to a fixed number of samples instead of its batch."""
    import torch
    from torch import nn

    class Fixed(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            return self.line(x).reshape(2, 3) if isinstance(x, torch.Tensor) else x

    return Fixed(), np.ones((8, 4), np.float32), None


def double_data() -> Built:
    """Float64 data for a module with float32 weights, which does not accept them."""
    module, x, y = cnn()
    return module, x.astype(np.float64) / 3, y


def bfloat16() -> Built:
    module, x, y = cnn()
    return module.bfloat16(), x, y


def script() -> Built:
    import torch

    module, x, y = cnn()
    return torch.jit.trace(module.eval(), torch.from_numpy(x[:2])), x, y
