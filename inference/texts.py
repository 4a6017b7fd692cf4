"""What the text encoder makes of prompts: each text once, for both stages where they have one encoder."""

from collections.abc import Mapping, Sequence

from inference.loras import LoRAs
from inference.networks import Networks
from inference.settings import Request
from modules.conditions import TextFeatures


class Texts:
    """The features of requests' texts; those of the last batch are kept for the stage that comes next."""

    def __init__(self, networks: Networks, loras: LoRAs) -> None:
        self.networks, self.loras = networks, loras
        self._of: object = None  # the encoder, and what was on it
        self._known: Mapping[str, int] = {}  # rows of the features, by text
        self._features: TextFeatures | None = None

    def of(self, stage: str, batch: Sequence[Request]) -> tuple[TextFeatures, TextFeatures]:
        """Features of the prompts and of the negative prompts, as a stage was trained with."""
        prompts, negatives = [r.prompt for r in batch], [r.negative_prompt for r in batch]
        features = self._encoded(stage, batch[0], dict.fromkeys((*prompts, *negatives)))
        return self._rows(features, prompts), self._rows(features, negatives)

    def _encoded(self, stage: str, request: Request, texts: Mapping[str, None]) -> TextFeatures:
        encoder = self.networks.peek_encoder("text_encoder", stage)
        # A LoRA may change the encoder of one stage and not that of the other.
        of = encoder, (stage, request.loras) if request.loras else ()
        if self._features is None or of != self._of or not texts.keys() <= self._known.keys():
            with self.networks.lend(encoder), self.loras.on_encoder(stage, encoder, request):
                self._features = encoder([*texts])
            self._of, self._known = of, {text: row for row, text in enumerate(texts)}
        assert self._features is not None
        return self._features

    def _rows(self, features: TextFeatures, texts: Sequence[str]) -> TextFeatures:
        rows = [self._known[text] for text in texts]
        return TextFeatures(*(each[rows] for each in features))
