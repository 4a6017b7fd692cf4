"""Numbers as HTML with SVG in it; words and lines keep their width at any size of the page."""
