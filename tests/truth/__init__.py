"""What NeMo and Megatron themselves say about a job, asked of their own code without starting it."""
