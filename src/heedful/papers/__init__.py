"""One file per paper: arms, seeds, claims; built only from recipes and the parts below them."""
