"""One run's folder: its paths, its lock, its attempts."""
