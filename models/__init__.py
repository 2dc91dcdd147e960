"""Where your model lives: the code that `export.source` names, or model files with their evaluation data."""
