"""One file for each kind of job: what its process runs."""
