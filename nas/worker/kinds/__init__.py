"""The kinds of jobs, one file for each, with the function that the job's process runs."""
