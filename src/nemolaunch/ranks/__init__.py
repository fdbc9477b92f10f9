"""What every training process does, whichever framework trains: guards, hang watch, metrics file, signals."""
