"""What others take for the same, beside the same anchors; in an environment of their own.

    python -m venv PEERS
    PEERS/bin/pip install -c constraints.txt torch numpy matplotlib scipy seaborn
    PEERS/bin/pip install --no-deps rational-activations zeroproofml
    OMP_NUM_THREADS=1 PEERS/bin/python benchmarks/speed/peers.py

`zeroproofml` brings a module of the same name as ours, so both cannot be loaded by one process:
compare ratios. What is not installed is left out.
"""

from collections.abc import Callable, Iterator
from importlib import import_module

import torch
from measure import compare, keep_memory  # the script's own folder is where Python looks first
from torch import Tensor

SIZE = 10**6


def forward_and_backward(function: Callable[..., Tensor], *tensors: Tensor) -> Callable:
    """Return a call that makes all gradients of a sum."""
    leaves = [x for x in tensors if x.requires_grad]
    return lambda: torch.autograd.grad(function(*tensors).sum(), leaves, allow_unused=True)


def rational_activations() -> Iterator[tuple[str, str, Callable, Callable]]:
    """Yield the elementwise rational of `rational-activations`, on a CPU."""
    layer = import_module("rational.torch").Rational(
        approx_func="leaky_relu", degrees=(5, 4), cuda=False, version="A"
    )
    x = torch.randn(SIZE, requires_grad=True)
    tensors = (x, *layer.parameters())

    def both() -> object:
        return torch.autograd.grad(layer(x).sum(), tensors)

    yield "rational-activations (5, 4)", "relu", both, forward_and_backward(torch.relu, x)


def zeroproofml() -> Iterator[tuple[str, str, Callable, Callable]]:
    """Yield decoding and losses of `zeroproofml`, called as the training guide calls them."""
    N, D, y = torch.randn(3, SIZE)
    ours = import_module("zeroproof.inference").strict_inference

    def decode() -> object:
        with torch.no_grad():
            return ours(N, D)

    yield "zeroproofml strict_inference", "N / D", decode, lambda: N / D
    N, D = N.clone().requires_grad_(), D.clone().requires_grad_()
    Y_n, Y_d = y, (torch.rand(SIZE) > 0.01).float()
    implicit = import_module("zeroproof.losses.implicit").implicit_loss
    margin = import_module("zeroproof.losses.margin").margin_loss
    sign = import_module("zeroproof.losses.sign").sign_consistency_loss

    def total(N: Tensor, D: Tensor) -> Tensor:
        fit = implicit(N, D, Y_n, Y_d) + 0.1 * margin(D, tau_train=1e-4)
        return fit + sign(N, D, Y_n, Y_d)

    def mse(N: Tensor, D: Tensor) -> Tensor:
        return (N / D - y).square().mean()

    losses = (forward_and_backward(loss, N, D) for loss in (total, mse))
    yield "zeroproofml implicit + margin + sign", "MSE(N / D)", *losses


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    keep_memory()
    print("| peer | figure | µs |\n|---|---|---|")
    for peer in (rational_activations, zeroproofml):
        try:
            cases = list(peer())
        except ImportError as error:
            print(f"| {peer.__name__} | not here: {error} | |")
            continue
        for name, anchor, call, base in cases:
            found = compare({"mine": call, "anchor": base}, repeats=15)
            mine, other = found["mine"].median, found["anchor"].median
            print(f"| {name} | {mine / other:.1f} × {anchor} | {mine:.0f} beside {other:.0f} |")


if __name__ == "__main__":
    main()
