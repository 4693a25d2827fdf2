"""What a person opens: measurements, and in time a viewer."""
