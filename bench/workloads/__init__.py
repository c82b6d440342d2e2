"""What is asked of an engine: real traces, data sets and synthetic lengths, each as a list of turns."""
