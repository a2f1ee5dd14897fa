"""What is private in Keras and the layers rely on. tests/test_sbp.py checks it, to tell what broke when Keras moves."""

from typing import Any

from keras.src.backend.common import global_state


def forward_pass() -> Any | None:
    """An object that stands for the forward pass in progress on this thread; None if there is none.

    A forward pass is the call of an outermost layer, usually a model, with the calls of all layers in it. Each tower
    has its own, in a thread of its own.
    """
    return global_state.get_global_attribute("current_call_ctx")
