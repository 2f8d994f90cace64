"""diffusers' ``scheduler_config.json`` → the process that a network was trained for."""

from typing import Any

from diffusion.process.config import ProcessConfig
from files.documents import shown

_SCHEDULES = {
    "linear": "linear_unscaled",
    "scaled_linear": "scaled_linear",
    "sigmoid": "sigmoid",
    "squaredcos_cap_v2": "cosine",
}
_TARGETS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_DDPM = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
_LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_DISCRETE = _LATENT | {"beta_schedule": "linear"}
# The schedulers of this process, and the values of fields that their files leave out.
_DEFAULTS = {
    **dict.fromkeys(("DDPM", "DDPMParallel", "DDIM", "DDIMParallel", "DDIMInverse", "PNDM", "RePaint"), _DDPM),
    **dict.fromkeys(("DPMSolverMultistep", "DPMSolverMultistepInverse", "DPMSolverSinglestep"), _DDPM),
    **dict.fromkeys(("DEISMultistep", "UniPCMultistep", "SASolver"), _DDPM),
    **dict.fromkeys(("EulerDiscrete", "EulerAncestralDiscrete", "LMSDiscrete"), _DDPM),
    **dict.fromkeys(("HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete"), _DISCRETE),
    **dict.fromkeys(("LCM", "TCD"), _LATENT),
}
_REFUSED = (  # fields that may mean another process or network: name, supported values
    ("variance_type", (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")),
    ("use_flow_sigmas", (None, False)),
    ("use_dynamic_shifting", (None, False)),
    ("snr_shift_scale", (None,)),
)
_OF_SAMPLING = (  # fields about sampling, for which we have flags: name, the value that changes nothing
    ("clip_sample", True),
    ("clip_sample_range", 1.0),
    ("thresholding", False),
    ("timestep_spacing", "linspace"),
    ("steps_offset", 0),
    ("use_karras_sigmas", False),
    ("use_exponential_sigmas", False),
    ("use_beta_sigmas", False),
)


def read_process(scheduler: dict[str, Any]) -> ProcessConfig:
    """The process; an empty dictionary gives the process of Ho et al. (2020).

    Raises:
        KeyError: names an unsupported variant and its value.
        UserError: a value that is no number, or out of its range.
    """
    kind = scheduler.get("_class_name", "DDPMScheduler")
    name = kind.removesuffix("Scheduler") if isinstance(kind, str) else ""
    if name not in _DEFAULTS:
        raise KeyError(f"_class_name is {shown(kind)}, which is no scheduler of this process")
    said = _DEFAULTS[name] | scheduler
    for field, allowed in _REFUSED:
        if said.get(field) not in allowed:
            raise KeyError(f"{field} is {shown(said[field])}, which is not supported")
    betas = said.get("trained_betas")
    if betas is not None and not isinstance(betas, list):
        raise KeyError(f"trained_betas is {shown(betas)}, not a list")
    # If all β are given, the other fields are not read.
    ends = _DDPM if betas is not None or said["beta_schedule"] == "squaredcos_cap_v2" else said
    return ProcessConfig(
        diffusion_steps=plain(said, "num_train_timesteps", 1000),
        noise_schedule=_choice(_SCHEDULES, said if betas is None else _DDPM, "beta_schedule"),
        beta_start=plain(ends, "beta_start"),
        beta_end=plain(ends, "beta_end"),
        betas=tuple(betas or ()),
        zero_terminal_snr=plain(said, "rescale_betas_zero_snr", False),
        target=_choice(_TARGETS, {"prediction_type": "epsilon"} | said, "prediction_type"),
    )


def notes_of(scheduler: dict[str, Any] | None) -> tuple[str, ...]:
    """Notes for a user of the network: choices of sampling that are not used, or that there is no file."""
    if scheduler is None:
        return (
            "no scheduler_config.json says how the network was trained: β from 1e-4 to 0.02 in 1,000 steps is taken",
        )
    other = [f"{name}={shown(scheduler[name])}" for name, same in _OF_SAMPLING if scheduler.get(name, same) != same]
    if not other:
        return ()
    return (f"scheduler_config.json: not used, since --sampler, --spacing and --clip say it here: {', '.join(other)}",)


def plain(raw: dict[str, Any], name: str, default: Any = None) -> Any:
    """A value for a configuration, which checks it; lists and very long values are refused here."""
    value = raw[name] if default is None else raw.get(name, default)
    if isinstance(value, list | dict) or len(shown(value)) > 60:
        raise KeyError(f"{name} is {shown(value)}, not a number")
    return value


def _choice(choices: dict[str, str], said: dict[str, Any], name: str) -> str:
    value = said[name]
    if not isinstance(value, str) or value not in choices:
        raise KeyError(f"{name} is {shown(value)}, not one of {', '.join(choices)}")
    return choices[value]
