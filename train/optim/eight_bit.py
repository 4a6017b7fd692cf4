"""AdamW with moments of 8 bits, by bitsandbytes; import this file only where it is asked for."""

from typing import Any

from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit


class PagedAdamW(PagedAdamW8bit):
    """The library's, whose moments move to the CPU's memory while a GPU's is full, after a restart too.

    On other devices than CUDA's they stay where they are, and the library warns of it.
    """

    def load_state_dict(self, state_dict: dict[str, Any], move_to_device: bool = True) -> None:
        super().load_state_dict(state_dict, move_to_device)  # which leaves them in the device's own memory
        for parameter, entries in self.state.items():
            for key in ("state1", "state2"):
                saved = entries[key]
                entries[key] = self.get_state_buffer(parameter, dtype=saved.dtype)
                entries[key].copy_(saved)


EIGHT_BIT = {"adamw8bit": AdamW8bit, "paged_adamw8bit": PagedAdamW}
