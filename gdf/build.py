"""Diffusion processes from plain data: {"schedule": {"name": "CosineSchedule", "s": 0.008}, ...}."""

import inspect
from collections.abc import Mapping
from typing import Any

from gdf import loss_weights, noise_conditions, samplers, scalers, schedules, targets, train_schedules
from gdf.diffusion import GDF
from gdf.names import nearest

_BASES: dict[str, type] = {
    "schedule": schedules.BaseSchedule,
    "input_scaler": scalers.BaseScaler,
    "target": targets.BaseTarget,
    "noise_cond": noise_conditions.BaseNoiseCond,
    "loss_weight": loss_weights.BaseLossWeight,
    "sampler": samplers.BaseSampler,
}
_MOST = 2**20  # of steps or buckets, each of which takes memory; a spec may come with a stranger's weights
_MODULES = (schedules, train_schedules, scalers, targets, noise_conditions, loss_weights)


def _classes(base: type) -> dict[str, type]:
    found = [value for module in _MODULES for value in vars(module).values() if inspect.isclass(value)]
    found += samplers.SAMPLERS.values()
    return {
        value.__name__: value for value in found if issubclass(value, base) and not inspect.isabstract(value)
    }


def build(spec: Mapping[str, Any]) -> GDF:
    """A GDF from its parts' specs: schedule, input_scaler, target, noise_cond, loss_weight, and offset_noise.

    Each part is {"name": one of gdf's classes of that kind, **its keywords}; a keyword's value may be such
    a dictionary again. Raises ValueError on a missing part, on an unknown name or keyword (naming the
    nearest), and on whole numbers beyond 2**20.
    """
    if not isinstance(spec, Mapping):
        raise ValueError(f"gdf: expected {{schedule: ..., target: ...}}, found {_shown(spec)}")
    _check_keywords("gdf", GDF, spec)
    parts = {kind: _build(kind, f"gdf.{kind}", value) for kind, value in spec.items() if kind in _BASES}
    return GDF(**parts, offset_noise=spec.get("offset_noise", 0.0))


def build_schedule(spec: Mapping[str, Any]) -> schedules.BaseSchedule:
    """A schedule from {"name": ..., **keywords}; errors as in `build`."""
    return _build("schedule", "schedule", spec)


def build_sampler(spec: Mapping[str, Any]) -> samplers.BaseSampler:
    """A sampler from {"name": ..., **keywords}; errors as in `build`."""
    return _build("sampler", "sampler", spec)


def _build(kind: str, where: str, spec: Any) -> Any:
    if not isinstance(spec, Mapping) or "name" not in spec:
        raise ValueError(f"{where}: expected {{name: ..., keywords}}, found {_shown(spec)}")
    classes = _classes(_BASES[kind])
    if str(spec["name"]) not in classes:
        raise ValueError(
            f"{where}.name: no {kind} is called {spec['name']!r}; {nearest(spec['name'], classes)}"
        )
    keywords = {key: value for key, value in spec.items() if key != "name"}
    _check_keywords(where, classes[spec["name"]], keywords, also=("name",))
    values = {key: _value(kind, f"{where}.{key}", value) for key, value in keywords.items()}
    try:
        return classes[spec["name"]](**values)
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{where}: no {spec['name']} can be made of {keywords} ({reason})") from error


def _shown(spec: Any) -> str:
    return "null" if spec is None else repr(spec)


def _value(kind: str, where: str, value: Any) -> Any:
    """A keyword's value; a spec, or a list of specs, is built as a part of the same kind."""
    if isinstance(value, Mapping):
        return _build(kind, where, value)
    if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        return [_build(kind, f"{where}[{i}]", item) for i, item in enumerate(value)]
    if isinstance(value, int) and abs(value) > _MOST:
        raise ValueError(f"{where}: expected at most {_MOST}, found {value}")
    return value


def _check_keywords(where: str, function: type, given: Mapping[str, Any], also: tuple[str, ...] = ()) -> None:
    parameters = inspect.signature(function).parameters
    for key in given:
        if key not in parameters:
            raise ValueError(
                f"{where}.{key}: {function.__name__} has no such keyword; "
                f"{nearest(key, [*also, *parameters])}"
            )
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in given:
            raise ValueError(f"{where}.{name}: missing, {function.__name__} needs it")
