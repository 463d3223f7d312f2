"""From an experiment file to finished steps."""
