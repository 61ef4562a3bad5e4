"""Batch normalization with the statistics of the images of all processes.

A training network is converted; parameters and their names stay, so checkpoints and bundles do not change. Nor does
anything outside training: evaluation and export use the running averages. The same operators run on every device;
MindSpore's ``nn.SyncBatchNorm`` exists on Ascend alone.

A layer exchanges one vector of 2 C values in each direction, C being its channels.

Forward, each process computes mean and variance of its own images around their own mean. Sums of squares of the values
themselves would lose digits where the mean is large compared with the deviation. All processes have the same number of
values, so with the offset ``d = mean − shift`` from a common shift

    mean = shift + E[d],    variance = E[variance + d²] − E[d]²,

where E is the mean over the processes. The shift is the running mean, which is equal in all processes and near the mean
of a batch: the subtraction then loses no digits, and the vector does not grow with the number of processes.

Backward, the sums over all processes of the gradients of shift and scale complete the gradient of the input
(https://arxiv.org/abs/1502.03167). The gradients of shift and scale themselves stay those of the process, since the
training sums the gradients of all parameters.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops


class GlobalStatistics(nn.Cell):
    """Mean and variance of each channel over the images of all processes, and their part of the gradient.

    Input, scale and shift of the normalization pass through this cell, so that its backward pass receives their
    gradients, computed with constant statistics.

    Args:
        epsilon: Added to the variance.
        world: Number of processes.
    """

    def __init__(self, epsilon: float, world: int) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.world = world
        self.sum = ops.AllReduce(ops.ReduceOp.SUM)
        self.normalize = ops.BatchNorm(is_training=False, epsilon=epsilon)

    def construct(
        self, x: Tensor, gamma: Tensor, beta: Tensor, running_mean: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Compute the statistics.

        Args:
            x: (N, C, H, W) of this process.
            gamma: (C,) scale.
            beta: (C,) shift.
            running_mean: (C,), equal in all processes.

        Returns:
            The first three arguments, and mean and biased variance, both (C,) without a gradient.
        """
        values = x.astype(ms.float32)
        mean = values.mean((0, 2, 3))
        variance = ops.square(values - mean.reshape(1, -1, 1, 1)).mean((0, 2, 3))
        offset = mean - running_mean
        offset, square = self._mean_over_processes(offset, variance + offset * offset, 1)
        variance = ops.relu(square - offset * offset)
        return x, gamma, beta, running_mean + offset, variance

    def bprop(
        self,
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        running_mean: Tensor,
        out: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
        dout: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Subtract the gradient through the statistics from that of the input."""
        mean, variance = out[3], out[4]
        dx, dgamma, dbeta = dout[0], dout[1], dout[2]
        by_scale, by_shift = self._mean_over_processes(dgamma, dbeta, values_of_channel(x))
        factor = gamma / ops.sqrt(variance + self.epsilon)
        # factor · (mean of dy · x̂ · x̂ + mean of dy), where x̂ is the normalized input, as one kernel.
        through = self.normalize(x, factor * by_scale, factor * by_shift, mean, variance)[0]
        return dx - through, dgamma, dbeta, ops.zeros_like(running_mean)

    def _mean_over_processes(self, first: Tensor, second: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the sums over processes of two vectors (C,), divided by the processes and a count; one exchange."""
        size = first.shape[0]
        total = self.sum(ops.concat((first, second), 0)) * (1.0 / (self.world * count))
        return ops.slice(total, (0,), (size,)), ops.slice(total, (size,), (size,))


class SynchronizedNorm(nn.Cell):
    """Takes the place of the operator with which ``nn.BatchNorm2d`` normalizes while it trains; has no parameters.

    Args:
        epsilon: Added to the variance.
        momentum: Weight of a batch in the running averages.
        world: Number of processes.
    """

    def __init__(self, epsilon: float, momentum: float, world: int) -> None:
        super().__init__()
        self.momentum = momentum
        self.world = world
        self.statistics = GlobalStatistics(epsilon, world)
        self.normalize = ops.BatchNorm(is_training=False, epsilon=epsilon)
        self.assign = ops.Assign()

    def construct(
        self, x: Tensor, gamma: Tensor, beta: Tensor, running_mean: Tensor, running_variance: Tensor
    ) -> tuple[Tensor]:
        """Normalize, and update the running averages; that of the variance is unbiased, as in ``nn.BatchNorm2d``.

        Args:
            x: (N, C, H, W) of this process.
            gamma: (C,) scale.
            beta: (C,) shift.
            running_mean: (C,), updated.
            running_variance: (C,), updated.

        Returns:
            (N, C, H, W), as the only element of a tuple.
        """
        x, gamma, beta, mean, variance = self.statistics(x, gamma, beta, running_mean)
        mean, variance = ops.stop_gradient(mean), ops.stop_gradient(variance)
        y = self.normalize(x, gamma, beta, mean, variance)[0]
        count = self.world * values_of_channel(x)
        old = 1 - self.momentum
        new_mean = running_mean * old + mean * self.momentum
        new_variance = running_variance * old + variance * (self.momentum * count / (count - 1))
        y = ops.depend(y, self.assign(running_mean, new_mean))
        return (ops.depend(y, self.assign(running_variance, new_variance)),)


def values_of_channel(x: Tensor) -> int:
    """Return the number of values of a channel in a feature map (N, C, H, W)."""
    n, _, height, width = x.shape
    return int(n * height * width)


def synchronize(network: nn.Cell, world: int) -> str:
    """Let the batch normalizations of a training network use the images of all processes.

    Frozen normalizations use their running statistics, and stay as they are.

    Args:
        network: The network, before its training step is compiled.
        world: Number of processes.

    Returns:
        What was done, as a line for the log.
    """
    if world == 1:
        return "train.sync_bn has no effect: one process has all images of a batch"
    count = 0
    for _, cell in list(network.cells_and_names()):
        if isinstance(cell, nn.BatchNorm2d) and cell.use_batch_statistics is not False:
            # MindSpore stores the weight of a batch here, and calls bn_train in training mode alone.
            cell.bn_train = SynchronizedNorm(cell.eps, cell.momentum, world)
            count += 1
    return f"batch normalization: {count} layers use the statistics of the images of all {world} processes"
