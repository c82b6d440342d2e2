"""Carrying out runs: a workload driven through the sidecar, watched from its operator's port, and kept in a folder that says everything."""
