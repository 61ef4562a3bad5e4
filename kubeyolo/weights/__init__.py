"""Files of weights, from other programs and for them."""
