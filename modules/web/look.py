"""The look of the pages: colours, sizes of type, space between things. `look.css` has the rest."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

CSS_FILE = Path(__file__).with_name("look.css")
SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
SYSTEM_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")
SHADES = ("c50", "c100", "c200", "c300", "c400", "c500", "c600", "c700", "c800", "c900", "c950")
HOUR, DAY = 3600, 86400  # seconds: how often uploads are looked through, and how old they get
# From light to dark: a blue-green for what can be done, greys with a trace of it for all the rest.
PINE = "#eef6f4 #d5e9e4 #abd3c9 #78b7a9 #479787 #2b7a6b #1f6357 #1b5048 #183f3a #153430 #0a1f1d"
SLATE = "#f7f8f7 #eef0ef #dfe3e1 #c5cbc8 #949d99 #69736f #4d5653 #3a4240 #252b2a #191e1d #101413"
ICON = (  # three pictures, each larger than the one before: the cascade
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7"'
    ' fill="#1b5048"/><rect x="6" y="6" width="6" height="6" rx="1.5" fill="#f5b041"/><rect x="10" y="11"'
    ' width="9" height="9" rx="2" fill="#78b7a9"/><rect x="15" y="16" width="12" height="12" rx="2.5"'
    ' fill="#eef6f4"/></svg>'
)
HEAD = f'<link rel="icon" type="image/svg+xml" href="data:image/svg+xml,{quote(ICON)}">'

COLOURS = {  # a star: a shade of the theme, by name
    "body_background_fill": "*neutral_50",
    "body_background_fill_dark": "*neutral_950",
    "body_text_color": "*neutral_900",
    "body_text_color_dark": "*neutral_100",
    "body_text_color_subdued": "*neutral_600",
    "body_text_color_subdued_dark": "*neutral_400",
    "block_background_fill": "white",
    "block_background_fill_dark": "*neutral_900",
    "block_border_width": "1px",
    "block_border_color": "*neutral_200",
    "block_border_color_dark": "*neutral_800",
    "block_shadow": "none",
    "block_label_background_fill": "transparent",
    "block_label_background_fill_dark": "transparent",
    "block_label_border_width": "0px",
    "block_label_text_color": "*neutral_600",
    "block_label_text_color_dark": "*neutral_400",
    "block_title_text_weight": "500",
    "block_title_text_color": "*neutral_700",
    "block_title_text_color_dark": "*neutral_300",
    "block_info_text_color": "*neutral_600",
    "block_info_text_color_dark": "*neutral_400",
    "input_background_fill": "*neutral_50",
    "input_background_fill_dark": "*neutral_950",
    "input_border_width": "1px",
    "input_border_color": "*neutral_300",
    "input_border_color_dark": "*neutral_700",
    "input_border_color_focus": "*primary_500",
    "input_border_color_focus_dark": "*primary_400",
    "input_placeholder_color": "*neutral_500",
    "input_placeholder_color_dark": "*neutral_500",
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
    "button_primary_background_fill_dark": "*primary_500",
    "button_primary_background_fill_hover_dark": "*primary_600",
    "button_primary_text_color": "white",
    "button_primary_text_color_dark": "white",
    "button_secondary_background_fill": "*neutral_100",
    "button_secondary_background_fill_hover": "*neutral_200",
    "button_secondary_background_fill_dark": "*neutral_800",
    "button_secondary_background_fill_hover_dark": "*neutral_700",
    "button_large_text_weight": "600",
    "slider_color": "*primary_600",
    "slider_color_dark": "*primary_400",
    "link_text_color": "*primary_600",
    "link_text_color_dark": "*primary_300",
}


def page(title: str, **keywords: Any) -> gr.Blocks:
    """An empty page with that title; the rest is filled in within `with page(...) as blocks:`."""
    return gr.Blocks(title=title, analytics_enabled=False, delete_cache=(HOUR, DAY), **keywords)


def shades(name: str, colours: str) -> gr.themes.Color:
    """A colour of the theme from its eleven shades."""
    return gr.themes.Color(**dict(zip(SHADES, colours.split(), strict=True)), name=name)


def theme() -> gr.themes.Base:
    """Colours and fonts; nothing in it is fetched from anywhere."""
    return gr.themes.Base(
        primary_hue=shades("pine", PINE),
        secondary_hue=shades("pine", PINE),
        neutral_hue=shades("slate", SLATE),
        text_size=gr.themes.sizes.text_md,
        spacing_size=gr.themes.sizes.spacing_md,
        radius_size=gr.themes.sizes.radius_md,
        font=SYSTEM_FONTS,
        font_mono=SYSTEM_MONO,
    ).set(**COLOURS)
