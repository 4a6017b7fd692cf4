"""What can be wrong with data: one word for each kind, listed here and explained to users in docs/data.md."""

from enum import StrEnum


class Kind(StrEnum):
    """Why something is left out; the word stands in logs, records and reports."""

    meaning: str

    def __new__(cls, word: str, meaning: str = "") -> "Kind":
        kind = str.__new__(cls, word)
        kind._value_ = word
        kind.meaning = meaning
        return kind

    # of shards
    UNREACHABLE = "unreachable", "a shard or file that is not there or cannot be read"
    NOT_TAR = "not_tar", "a shard that is no plain tar: empty, a web page, compressed"
    CUT = "cut", "a tar that ends too early, and the sample at its end"
    DAMAGED = "damaged", "a damaged place in a tar, and the samples that touch it"
    ENDLESS = "endless", "64 MiB and more without a member: zeros or noise, perhaps for ever"
    # of members
    UNSAFE_NAME = "unsafe_name", "a name that is absolute, holds `..` or control characters, or is very long"
    LINK = "link", "a link or device in the place of a file"
    OVERSIZED = "oversized", "a member or file larger than 256 MiB"
    REPEATED_MEMBER = "repeated_member", "two members of one sample with the same ending"
    REPEATED_KEY = (
        "repeated_key",
        "a sample (or row of a table) of the same name as an earlier one of its shard",
    )
    CROWDED = "crowded", "more than 10,000 members, or 512 MiB, of one name"
    # of texts
    NO_CAPTION = "no_caption", "no caption, while `data.missing_caption=skip`"
    LONG_CAPTION = "long_caption", "a caption of more than 64 KiB"
    ENCODING = "encoding", "text that is not UTF-8, or holds NUL or half characters"
    NOT_JSON = "not_json", "a json that cannot be parsed"
    NO_OBJECT = "no_object", "a json that is a list or a single value"
    NOT_FINITE = "not_finite", "NaN or infinity in a json"
    NESTED = "nested", "a json nested too deeply"
    HUGE_JSON = "huge_json", "a json of more than 256 KiB"
    REPEATED_NAME = "repeated_name", "a json that says the same name twice"
    # of pictures
    NO_PICTURE = "no_picture", "a sample or text without a picture"
    EMPTY = "empty", "a picture of zero bytes"
    NOT_PICTURE = "not_picture", "a picture's content in no known format"
    CUT_PICTURE = "cut_picture", "a picture whose data end too early"
    UNDECODABLE = "undecodable", "a picture that is damaged in another way"
    BOMB = "bomb", "a small file that would unpack to something immense: pixels, texts or profiles"
    HUGE = "huge", "a picture of more than `data.max_megapixels`"
    TINY = "tiny", "a picture with a side shorter than 4 px"
    NARROW = "narrow", "a picture more than 20 times as long as wide"
    FALSE_SIZE = "false_size", "a picture of another size than its json says"
    LATENTS = "latents", "precomputed latents that are damaged or do not fit"
    # not broken
    FILTERED = "filtered", "left out by `data.filters`"
    HIDDEN = "hidden", "a hidden file or folder, which `pack` passes over"


class UnusableError(ValueError):
    """Something of the data cannot be used: of which kind, and in one line why."""

    def __init__(self, kind: Kind, reason: str):
        super().__init__(reason)
        self.kind = kind

    def __reduce__(self) -> tuple[type, tuple[Kind, str]]:
        return type(self), (self.kind, str(self))
