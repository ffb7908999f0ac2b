"""A small task, and ways to end a training that is at work."""

import multiprocessing
import os
import signal
import time

import torch

from calcarine.training import TrainingConfig, train


class Tiny(torch.nn.Module):
    """Regression with noise, dropout, a running mean and a large frozen part."""

    n_train, n_validation = 30, 10

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.x, self.y = (torch.randn(40, n, generator=generator) for n in (6, 2))
        self.frozen = torch.nn.Linear(6, 500).requires_grad_(False)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Dropout(0.2), torch.nn.Linear(5, 2)
        )
        self.register_buffer("mean", torch.zeros(6))
        for parameter in self.parameters():
            torch.nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)

    def training_loss(self, rows, generator):
        x = self.x[rows]
        x = x + 0.1 * torch.randn(x.shape, generator=generator)
        if self.net.training:
            self.mean.lerp_(x.mean(0), 0.1)
        error = (self.net(x - self.mean) - self.y[rows]).square().mean()
        size = sum(parameter.abs().mean() for parameter in self.net.parameters())
        return error + 0.01 * size, {"error": error, "size": size}

    def validation_loss(self, rows, generator):
        return self.training_loss(rows + 30, generator)


def settings(**changed):
    base = {
        "steps": 12,
        "batch_size": 8,
        "accumulate": 2,
        "lr": 0.02,
        "warmup_steps": 3,
        "validate_every": 3,
        "save_every_steps": 2,
        "accelerator": "cpu",
    }
    return TrainingConfig(**(base | changed))


def in_child(function):
    """Exit code of a process that does ``function``; negative when a signal ended it."""
    child = multiprocessing.get_context("fork").Process(target=function)
    child.start()
    child.join(60)
    return child.exitcode


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


class Dying(Tiny):
    """Killed in its n-th call, so also between the micro-batches of a step and in validation."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def training_loss(self, rows, generator):
        self.calls -= 1
        if self.calls == 0:
            kill()
        return super().training_loss(rows, generator)


class Even(Tiny):
    """Without the running mean, of which each process would have its own."""

    def training_loss(self, rows, generator):
        self.mean.zero_()
        return super().training_loss(rows, generator)


class FailingOnTheSecond(Even):
    """Killed, or failing, in the n-th call on the second device."""

    def __init__(self, calls, how):
        super().__init__()
        self.calls, self.how = calls, how

    def training_loss(self, rows, generator):
        if os.environ.get("LOCAL_RANK") == "1":
            self.calls -= 1
            if self.calls == 0:
                if self.how == "killed":
                    kill()
                raise RuntimeError("device 1 is out of memory")
        return super().training_loss(rows, generator)


class Telling(Even):
    """Writes the process of each device into a folder, and is slow."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def training_loss(self, rows, generator):
        (self.folder / os.environ.get("LOCAL_RANK", "0")).write_text(str(os.getpid()))
        time.sleep(0.05)
        return super().training_loss(rows, generator)


def traces(folder):
    """What must not depend on interruptions, byte for byte."""
    names = ("log.csv", "validation.csv", "weights.safetensors")
    return [(folder / name).read_bytes() for name in names]


def killed_after(folder, calls, config):
    assert in_child(lambda: train(Dying(calls), config, folder)) == -signal.SIGKILL
