"""Units of work: parts of the input that any process of any machine can tokenise, joined in order afterwards."""
