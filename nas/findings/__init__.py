"""Results of a study's trials: scores, fronts, comparisons, and sentences about them. Loads neither torch nor ray."""
