"""Terminal output of plans, estimates, progress and errors. The only code that prints."""
