"""The courses of fine-tuning, one for each kind of examples."""
