"""The CPU's own backward of SwiGLU is the derivative."""

from __future__ import annotations

from forkserver import ForkServer


def test_swiglu_has_the_gradient_of_autograd(fork_server: ForkServer) -> None:
    (apart,) = fork_server.run("nemo2.activation_job:swiglu_gradients")
    assert set(apart) == {"without bias", "with bias", "of experts"}
    assert max(apart.values()) < 1e-12
