"""A process that draws or loads with a network and tells how much memory that took; run by its test.

python memory_worker.py <weights> <what> <dtype> <offload> <quantize or none>
"""

import gc
import sys
import tempfile
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from inference.offload import Offloaded
from inference.reading import Keeping
from modules import StageC
from modules.host_memory import give_back_freed
from modules.weights import save_network


class Peak:
    """The most memory of its own (files that are mapped are not counted) that the process has, in MiB."""

    def __init__(self) -> None:
        self.most, self._over = self.now(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    @staticmethod
    def now() -> float:
        """At this moment."""
        [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon")]
        return int(line.split()[1]) / 1024

    def _watch(self) -> None:
        while not self._over.wait(0.001):
            self.most = max(self.most, self.now())

    def stop(self) -> float:
        """The peak; ends the watching."""
        self._over.set()
        self._thread.join()
        return max(self.most, self.now())


def run(network: Any, offloaded: Offloaded | None) -> None:
    """Two steps of a small picture."""
    config = network.config
    given = {
        "clip_text": torch.zeros(1, 4, config["c_clip_text"]),
        "clip_text_pooled": torch.zeros(1, 1, config["c_clip_text_pooled"]),
        "clip_img": torch.zeros(1, 1, config["c_clip_img"]),
    }
    with offloaded.lent() if offloaded else nullcontext():
        for _ in range(2):
            network(torch.zeros(1, 16, 4, 4), torch.zeros(1), **given)


@torch.inference_mode()
def main(weights: str, dtype: str, offload: str, quantize: str) -> None:
    """Load Stage C and run it; print by how many MiB memory grew at most, and by how many it has now."""
    torch.set_num_threads(1)
    few_bits = {} if quantize == "none" else {"stage_c": quantize}
    keeping = Keeping(torch.device("cpu"), getattr(torch, dtype), offload, few_bits)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:  # the same with a small network, for what that loads
        small = Path(folder) / "stage_c.safetensors"
        save_network(small, StageC(c_hidden=[64, 64], nhead=[2, 2], c_cond=64), "stage_c", {})
        run(*keeping.read("stage_c", str(small)))
    gc.collect()
    give_back_freed()  # else it may go meanwhile, and the network seem the smaller
    before, peak = Peak.now(), Peak()
    kept = keeping.read("stage_c", weights)
    run(*kept)
    print(peak.stop() - before, Peak.now() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
