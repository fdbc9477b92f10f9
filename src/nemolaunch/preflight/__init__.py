"""What the nodes of a job are capable of, measured before its first step: measurements, and how they are judged."""
