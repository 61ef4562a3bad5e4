"""Files of weights that come from other programs, or are written for other programs."""
