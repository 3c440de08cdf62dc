"""Figure 4 and Table 18 of the paper in miniature."""
