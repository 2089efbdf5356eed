"""One reader for each format: the places of a data set, the reading of its files, and messages if they are missing."""
