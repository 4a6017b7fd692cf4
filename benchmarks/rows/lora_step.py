"""A training step of a LoRA on Stage C beside one of peft on diffusers' network."""

from typing import Any

import torch
from torch import nn

from benchmarks.frame import Found, Run, row
from benchmarks.loop import adamw, training_step
from benchmarks.networks import (
    call_peer,
    compiled_by_blocks,
    conditions,
    peer_by_blocks,
    peer_of,
    quarter_width,
    random_network,
    released,
)
from modules.adapters.lora import LoRA

RANK = 4
OUR_LAYERS, THEIR_LAYERS = {"*.attn.*": RANK}, ["to_q", "to_k", "to_v", "to_out.0"]
DTYPE = torch.bfloat16


@row(
    "cpu",
    "LoRA of rank 4 on Stage C, quarter width, training step, batch 8, bf16",
    "peft on diffusers' network",
    seconds=30,
)
def lora_training(run: Run) -> Found:
    config, shape = quarter_width(released("stage_c", "1b")), (8, 16, 24, 24)
    if run.small:
        config, shape = released("stage_c", "1b", small=True), (2, 16, 4, 4)
    network = random_network("stage_c", config, run.device, DTYPE).train().requires_grad_(False)
    theirs = with_peft(peer_of("stage_c", network).requires_grad_(False))
    inputs = conditions("stage_c", config, shape, run.device, DTYPE)
    LoRA.create(network, OUR_LAYERS).attach(network)
    check_alike(network, theirs)
    ours = {"eager": network}
    if run.small:  # compiled for a CPU, dropout's masks are drawn entry by entry
        ours["compiled by blocks"] = compiled_by_blocks(network)
    peers = {"eager": theirs, "compiled by blocks": peer_by_blocks(theirs)}
    of_ours, of_theirs = adamw(network), adamw(theirs)

    def our_step(module: Any) -> Any:
        return training_step(lambda x, r, given: module(x, r, **given), of_ours, inputs, shape, DTYPE)

    def their_step(module: Any) -> Any:
        return training_step(
            lambda x, r, given: call_peer(module, x.to(DTYPE), r, given), of_theirs, inputs, shape, DTYPE
        )

    found = run.compare(
        {name: our_step(module) for name, module in ours.items()},
        {name: their_step(module) for name, module in peers.items()},
        shorten=True,
    ).found(units=shape[0])
    found.facts["learning_parameters"] = learning(network)
    return found


def with_peft(theirs: nn.Module) -> nn.Module:
    """diffusers' network with peft's layers, which learn in float32 as ours do."""
    import peft

    peft.inject_adapter_in_model(
        peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=THEIR_LAYERS), theirs
    )
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return theirs.train()


def check_alike(network: nn.Module, theirs: nn.Module) -> None:
    """RuntimeError unless as much learns in both."""
    if learning(network) != learning(theirs):
        raise RuntimeError(f"ours learns {learning(network)} parameters, peft's {learning(theirs)}")


def learning(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
