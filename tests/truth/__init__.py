"""NeMo's and Megatron's own verdict on a job, obtained by calling their code without starting the job."""
