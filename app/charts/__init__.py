"""Charts: one look for light and dark, colors that color-blind readers can tell apart, and the loss curves."""
