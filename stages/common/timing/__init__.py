"""Timing two models side by side: fresh processes as observations, and the interval over them."""
