"""Hyperparameters: fields of a frozen dataclass that say what they are for, and between which bounds they lie."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

from keras_sbp.utils.io.command_line import UserError


def option(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: Collection[str] | None = None,
    inherited: bool = False,
) -> Any:
    """A field of a dataclass, which `experiment.flags` turns into a flag of that name.

    Args:
        inherited: a run hands its value on to the runs that it starts from and has to train first.
    """
    metadata = {"help": help, "at_least": at_least, "at_most": at_most, "choices": choices, "inherited": inherited}
    return dataclasses.field(default=default, metadata=metadata)


def check(options: Any) -> None:
    """Check the values of a dataclass of options, as its `__post_init__`.

    Raises:
        UserError: a value lies outside its bounds.
    """
    for field in dataclasses.fields(options):
        value, known = getattr(options, field.name), field.metadata
        numbers = [value] if isinstance(value, (int, float)) else []
        low, high = known.get("at_least"), known.get("at_most")
        for number in numbers:
            if not math.isfinite(number):
                raise UserError(f"{field.name}={number} is not finite: use a finite number")
            if low is not None and number < low or high is not None and number > high:
                bounds = f"at least {low}" if high is None else f"from {low} to {high}"
                raise UserError(f"{field.name}={number} is out of bounds: use a number {bounds}")
        if known.get("choices") and value not in known["choices"]:
            raise UserError(f"{field.name}={value} is unknown: choose one of {', '.join(known['choices'])}")


def in_todays_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings in which flags from before version 1.0 have today's names and types.

    Of a power of the cost, such as "75*cost^0.5", only the multiple is kept.
    """
    renamed = {"snr_threshold": "threshold", "rule": "criterion"}
    settings = {renamed.get(name, name): value for name, value in settings.items()}
    if "kl_start" not in settings:
        return settings
    scales = {"initial_kl_scale": ([], "price"), "kl_scale": ([1.0], "final_price")}
    for (name, (default, price)), given in zip(scales.items(), (settings.pop("kl_start"), settings["kl_scale"])):
        by_price = bool(given) and given[0].startswith("price=")
        settings[price] = float(given[0].removeprefix("price=")) if by_price else 0.0
        settings[name] = default if by_price else [float(factor.partition("*")[0]) for factor in given or []]
    return settings
