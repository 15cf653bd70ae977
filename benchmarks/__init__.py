"""Speed and memory, side by side with what a user would use instead: ratios in one run, never a timed test."""
