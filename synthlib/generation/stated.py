"""Stated: what a single file, or the YAML beside it, says of its model; refused by name where our sampler does not draw that."""

from pathlib import Path

import torch

from synthlib.generation.parts import DDIM
from synthlib.inputs import InputError

# What a CompVis YAML may state of a model that our sampler draws (parts.DDIM), by section: key -> the values it may have, or
# ANY where it is read (by diffusers' conversion or here) or does not matter to drawing. Whatever else is stated is refused by
# name: defaults of CompVis's code (ldm/models/diffusion/ddpm.py) stand only for what is not.
ANY = None
YAML = {
    "model.params": {
        **dict.fromkeys(
            "unet_config first_stage_config cond_stage_config image_size channels scale_factor scale_by_std log_every_t monitor "
            "num_timesteps_cond first_stage_key cond_stage_trainable scheduler_config loss_type clip_denoised ckpt_path "
            "ignore_keys load_only_unet l_simple_weight original_elbo_weight learn_logvar logvar_init v_posterior".split(),
            ANY,
        ),
        "linear_start": (0.00085,),
        "linear_end": (0.012,),
        "timesteps": (1000,),
        "parameterization": ("eps",),
        "beta_schedule": ("linear",),  # which there is what diffusers calls scaled_linear
        "given_betas": (None,),
        "use_ema": (False,),
        "cond_stage_key": ("txt", "caption"),
        "conditioning_key": ("crossattn",),
    },
    "unet_config.params": {
        **dict.fromkeys(
            "in_channels out_channels model_channels channel_mult num_res_blocks attention_resolutions num_heads context_dim "
            "transformer_depth image_size use_checkpoint use_fp16 dropout legacy".split(),
            ANY,
        ),
        "dims": (2,),
        "conv_resample": (True,),
        "use_spatial_transformer": (True,),
        "use_linear_in_transformer": (False,),
        **dict.fromkeys(("use_scale_shift_norm", "resblock_updown", "disable_self_attentions"), (False,)),
    },
    "first_stage_config.params": dict.fromkeys(("embed_dim", "ddconfig", "monitor", "lossconfig", "ckpt_path"), ANY),
    "first_stage_config.params.ddconfig": {
        **dict.fromkeys("z_channels resolution in_channels out_ch ch ch_mult num_res_blocks dropout".split(), ANY),
        "double_z": (True,),
        "attn_resolutions": ([],),
        "attn_type": ("vanilla",),
        "tanh_out": (False,),
    },
    "cond_stage_config.params": {
        **dict.fromkeys(("version", "device", "max_length", "freeze"), ANY),
        "layer": ("last",),
        "layer_idx": (None,),
    },
}
TARGETS = {  # the classes of CompVis's code that a YAML may name, by the last word
    "model": "LatentDiffusion",
    "unet_config": "UNetModel",
    "first_stage_config": "AutoencoderKL",
    "cond_stage_config": "FrozenCLIPEmbedder",
}
# What the header of a .safetensors file may say (Stability AI's modelspec, and Comfy's and kohya's words), and tensors that are
# there only as a mark: of a model that predicts v, or whose last signal-to-noise ratio is zero.
METADATA = {
    "modelspec.architecture": ("stable-diffusion-v1",),
    "modelspec.prediction_type": ("epsilon", "eps"),
    "prediction_type": ("epsilon", "eps"),
    "ss_base_model_version": ("sd_v1",),
    "modelspec.predict_key": ("epsilon", "eps"),
    "modelspec.timestep_range": ("0,1000", "0,999"),
    "modelspec.encoder_layer": ("1", "last"),
    "ss_clip_skip": ("None", "1"),
    **dict.fromkeys(("ss_v2", "ss_v_parameterization", "ss_zero_terminal_snr"), ("False", "None")),
}
MARKS = ("v_pred", "ztsnr", "edm_vpred.sigma_max", "edm_vpred.sigma_min", "edm_mean", "edm_std")


def check_process(file: Path, tensors: dict[str, torch.Tensor], said: dict[str, str]) -> None:
    """InputError where a file says, in its metadata or by its tensors, that it is of another process than our sampler draws."""
    for name, values in METADATA.items():
        if said.get(name, values[0]) not in values:
            raise _other_kind(f"{file} says {name} {said[name]!r}", values)
    if marks := [name for name in MARKS if name in tensors or name in said]:
        raise _other_kind(f"{file} is marked {marks[0]}", ("a model without this mark",))
    from diffusers import DDIMScheduler

    ours = DDIMScheduler(**DDIM)
    for name in ("betas", "alphas_cumprod"):  # the schedule itself, as CompVis's code keeps it, or float16 of it
        stated, wanted = tensors.get(name), getattr(ours, name)
        if stated is not None and not (
            stated.shape == wanted.shape and torch.allclose(stated.float(), wanted, rtol=0.01, atol=1e-4)
        ):
            raise _other_kind(f"{file} holds {name} of another noise schedule", ("Stable Diffusion v1's",))


def _other_kind(what: str, values: tuple) -> InputError:
    wanted = " or ".join(value if isinstance(value, str) else repr(value) for value in values)
    return InputError(
        f"{what}; expected {wanted}: only Stable Diffusion v1's kind is drawn from single files, give the diffusers folder."
    )


def check_yaml(beside: Path, config: dict) -> None:
    """InputError for what a YAML states of a model and YAML above has not, or has with another value."""
    params = config["model"]["params"]
    blocks = {name: params.get(name) or {} for name in ("unet_config", "first_stage_config", "cond_stage_config")}
    sections = {"model.params": params} | {
        f"{name}.params": block.get("params") or {} for name, block in blocks.items()
    }
    sections["first_stage_config.params.ddconfig"] = sections["first_stage_config.params"]["ddconfig"]
    for name, block in ({"model": config["model"]} | blocks).items():
        if stray := sorted(block.keys() - {"target", "params", "base_learning_rate"}):
            raise _other_kind(
                f"{beside} has {name}.{stray[0]} {block[stray[0]]!r}", ("it among params, or nothing of that name",)
            )
        if str(block.get("target", TARGETS[name])).rpartition(".")[2] != TARGETS[name]:
            raise _other_kind(f"{beside} has {name}.target {block['target']!r}", (TARGETS[name],))
    for section, stated in sections.items():
        for name, value in stated.items():
            values = YAML[section].get(name, ("nothing of that name",))
            if values is not ANY and value not in values:
                raise _other_kind(f"{beside} has {section}.{name} {value!r}", values)
