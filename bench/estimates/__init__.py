"""What a workload would cost before it is run: from a calibration, from results, or from a model's shape and a GPU."""
