"""Many runs described, planned, started and read as one: sweeps over any field of a job, and ladders of model sizes."""
