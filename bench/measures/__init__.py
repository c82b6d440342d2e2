"""What a run says: metrics with their formulas, the steady state, whether it is valid, and how two runs compare."""
