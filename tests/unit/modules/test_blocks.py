import pytest
import torch
from torch import nn

from modules.blocks import (
    AttnBlock,
    Conditions,
    FeedForwardBlock,
    ResBlock,
    TimestepBlock,
    UpDownBlock2d,
    resize,
    timestep_embedding,
)

COND = Conditions(torch.randn(2, 6), torch.randn(2, 3, 10))


def test_without_self_attention_pixels_do_not_see_each_other() -> None:
    x = torch.randn(1, 8, 4, 4)
    changed = x.clone()
    changed[:, 0, 0, 0] += 1  # one channel of one pixel
    cond = Conditions(COND.timestep[:1], COND.tokens[:1])
    for self_attn in (False, True):
        block = AttnBlock(8, 10, 2, self_attn=self_attn)
        same = torch.isclose(block(x, cond), block(changed, cond), atol=1e-6)
        assert same[..., 1:, :].all() != self_attn


@pytest.mark.parametrize(
    "block",
    [ResBlock(8), FeedForwardBlock(8), AttnBlock(8, 10, 2), TimestepBlock(8, 6)],
    ids=lambda b: type(b).__name__,
)
def test_blocks_keep_channels_last_memory(block: nn.Module) -> None:
    x = torch.randn(2, 8, 6, 5).to(memory_format=torch.channels_last)
    y = block(x, COND)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, block(x.contiguous(), COND))


def test_control_is_resized_and_added_before_the_block() -> None:
    block, x, control = ResBlock(8), torch.randn(2, 8, 6, 5), torch.randn(2, 8, 2, 2)
    expected = block(x + resize(control, 6, 5), COND)
    torch.testing.assert_close(block(x, COND._replace(control=control)), expected)


def test_timestep_companions_add_up() -> None:
    block = TimestepBlock(8, 3, ("sca",))
    alone = TimestepBlock(8, 3)
    alone.mapper.load_state_dict(block.mapper.state_dict())
    nn.init.zeros_(block.mapper_sca.weight)
    nn.init.zeros_(block.mapper_sca.bias)
    x = torch.randn(2, 8, 4, 4)
    alone_cond = COND._replace(timestep=COND.timestep[:, :3])
    torch.testing.assert_close(block(x, COND), alone(x, alone_cond))
    nn.init.ones_(block.mapper_sca.bias)  # scale and shift by one more
    torch.testing.assert_close(block(x, COND), alone(x, alone_cond) + x + 1)


def test_up_down_block_halves_and_doubles() -> None:
    x = torch.randn(1, 4, 6, 8)
    assert UpDownBlock2d(4, 3, "down")(x).shape == (1, 3, 3, 4)
    assert UpDownBlock2d(4, 3, "up")(x).shape == (1, 3, 12, 16)
    assert UpDownBlock2d(4, 3, "up", enabled=False)(x).shape == (1, 3, 6, 8)
    with pytest.raises(ValueError, match="mode: expected up or down, found 'sideways'"):
        UpDownBlock2d(4, 3, "sideways")


def test_timestep_embedding() -> None:
    embedded = timestep_embedding(torch.tensor([0.0, 1e-4, 1.0]), 9)
    assert embedded.shape == (3, 9)
    assert embedded[0].tolist() == [0.0] * 4 + [1.0] * 4 + [0.0]
    torch.testing.assert_close(
        embedded[1, 0], torch.tensor(1.0).sin()
    )  # the first frequency is 1 per position
    torch.testing.assert_close(embedded[2, 3], torch.tensor(1.0).sin(), atol=1e-5, rtol=0)  # the last is 1e-4
    assert timestep_embedding(torch.rand(2).bfloat16(), 8).dtype == torch.float32
