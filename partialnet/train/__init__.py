"""Training of a fixed network: recipe, loop, evaluation, checkpoints."""
