"""Learning the split ratios of any module that contains ``DPConv2d`` layers. Uses neither data sets nor Ray."""
