"""What runs beside the work inside a pod: each module is a program of its own, and light."""
