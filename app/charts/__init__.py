"""Charts: one look for light and dark, colours that colour-blind readers can tell apart, and the loss curves."""
