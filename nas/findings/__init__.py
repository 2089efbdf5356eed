"""What the trials of a study say: scores, fronts, comparisons, and sentences about them. No torch, no ray."""
