"""How the default fit does on the data people measure, beside the best of others."""
