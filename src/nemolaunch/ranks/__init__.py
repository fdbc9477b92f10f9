"""What every training process does, whichever framework it uses: guards, hang detection, metrics file, signals."""
