"""How fast is INT8 here, and how much memory does it take? Launches in fresh processes, intervals over launches."""
