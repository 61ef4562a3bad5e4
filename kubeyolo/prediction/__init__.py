"""Objects in people's pictures: what is read, in which order, and how it is drawn."""
