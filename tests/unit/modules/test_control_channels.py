"""A U-Net says how wide its convolution blocks are, in the order in which controls reach them."""

import torch

from modules import StageC
from modules.blocks import ResBlock


def test_channels_are_those_of_the_blocks_as_they_run() -> None:
    torch.manual_seed(0)
    network = StageC(
        c_in=4,
        c_out=4,
        c_r=8,
        c_cond=16,
        c_hidden=(8, 16),
        nhead=(1, 2),
        blocks=((1, 2), (3, 1)),
        block_repeat=((1, 2), (1, 3)),
        level_config=("CT", "CTA"),
        c_clip_text=16,
        c_clip_text_pooled=16,
        c_clip_img=16,
        dropout=0.0,
    )
    seen: list[int] = []
    for block in network.modules():
        if isinstance(block, ResBlock):
            block.register_forward_hook(lambda block, inputs, output: seen.append(output.shape[1]))
    text = torch.zeros(1, 1, 16)
    network(torch.zeros(1, 4, 4, 4), torch.zeros(1), text, text, text)
    assert network.control_channels() == seen
    assert seen == [8, 16, 16, 16, 16, 16, 16, 16, 8, 8, 8]
