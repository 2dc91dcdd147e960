"""How fast is INT8 here, and what does it take? Launches in fresh processes, intervals over launches; no limits."""
