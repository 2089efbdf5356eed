"""One reader per format: where a data set may lie, how its files are read, and what to say when they are not there."""
