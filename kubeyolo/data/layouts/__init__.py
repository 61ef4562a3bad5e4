"""How data sets of each format are laid out, told by the names of their files."""
