"""Learning the split ratios of any module that contains ``DPConv2d`` layers. No data sets and no Ray here."""
