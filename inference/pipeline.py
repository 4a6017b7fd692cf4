"""The cascade: pictures out of prompts and pictures."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from PIL import Image

from inference.facts import facts_of, origin_of
from inference.networks import Networks, pick_device, usual_format
from inference.pairing import pair_up
from inference.pictures import Picture
from inference.prepare import prepare
from inference.progress import OnStep, ignore
from inference.reading import Compile, Offload, Quantize
from inference.settings import Request, Weights
from inference.stages import Stages
from inference.tasks import task_of
from modules.pictures import to_image
from modules.tiles import TILE_PX


class Cascade:
    """A set of networks from which pictures can be had; `stages` gives its parts one by one."""

    def __init__(self, networks: Networks, tile_px: int | None = TILE_PX) -> None:
        self.networks = networks
        self.stages = Stages(networks, tile_px)

    @classmethod
    def load(
        cls,
        run: str | None = None,
        *,
        device: str = "auto",
        dtype: str | None = None,
        ema: bool = True,
        offload: Offload = "none",
        quantize: Quantize = None,
        compile: Compile = False,
        tile_px: int | None = TILE_PX,
        **weights: str | None,
    ) -> "Cascade":
        """Find a cascade; each network is read from disk when it is first needed.

        run: a folder of runs, or one run. weights: single files by network (stage_a=…, stage_c=…), ours or
        the official ones; text_encoder=…, image_encoder=…: folders or hub names. device: "auto", "cpu",
        "cuda", … dtype: "fp32", "bf16" or "fp16"; None chooses. ema: take averaged
        weights where there are any. offload: "stage" keeps weights on the device only while their network
        computes, "block" those of Stage B and Stage C only while their block does. quantize: "nf4" or "int8"
        for Stage C and Stage B, or one for each of "stage_c", "stage_b", "text_encoder". compile: the blocks
        of Stage C and Stage B, which the first picture waits for; "graphs": the networks whole, which a GPU
        replays as CUDA graphs. tile_px: Stage A decodes pictures larger than that in tiles; None: whole.
        Raises ValueError, FileNotFoundError.
        """
        place = pick_device(device)
        dtype = dtype or usual_format(place)
        source = Weights(**weights)
        networks = Networks(
            run,
            source,
            ema=ema,
            device=place,
            dtype=dtype,
            offload=offload,
            quantize=quantize,
            compile=compile,
        )
        return cls(networks, tile_px)

    def described(self) -> str:
        """In one line: where and how the networks compute, and what was chosen to save memory."""
        tiles = "" if self.stages.tile_px is None else f"; Stage A in tiles of {self.stages.tile_px} px"
        return self.networks.keeping.described() + tiles

    def generate(
        self,
        prompts: str | Sequence[str],
        seeds: int | Sequence[int] = 0,
        *,
        batch_size: int = 4,
        on_step: OnStep = ignore,
        **settings: Any,
    ) -> list[Picture]:
        """Make pictures: number i has prompts[i] and seeds[i]; a single prompt or seed serves all.

        settings: the other fields of Request (task, negative_prompt, width_px, height_px, stage_c, loras, …).
        A list of image, mask or image_prompt gives each picture its own, and so does a list of lists of
        controls.
        """
        requests = pair_up(prompts, seeds, settings)
        return list(self.run(self.batches(requests, batch_size), on_step))

    def batches(self, requests: Sequence[Request], batch_size: int) -> list[list[Request]]:
        """Check all requests, fill in their sizes and settings and cut them into batches, in order.

        Raises ValueError or FileNotFoundError for what cannot be made.
        """
        prepared = [prepare(self.stages, request) for request in requests]
        groups = [list(group) for _, group in groupby(prepared, lambda request: request.shared)]
        return [group[i : i + batch_size] for group in groups for i in range(0, len(group), batch_size)]

    def run(self, batches: Sequence[Sequence[Request]], on_step: OnStep = ignore) -> Iterator[Picture]:
        """Make the pictures of prepared batches, one batch after the other."""
        for batch in batches:
            for row, image in enumerate(self.run_batch(batch, on_step)):
                yield Picture(image, facts_of(batch[row], origin_of(self.stages, batch, row)))

    @torch.inference_mode()
    def run_batch(self, batch: Sequence[Request], on_step: OnStep = ignore) -> list[Image.Image]:
        """The bare pictures of one prepared batch."""
        return [to_image(pixels) for pixels in task_of(batch[0]).make(self.stages, batch, on_step)]
