"""How data sets of each format are laid out, recognized by the names of their files."""
