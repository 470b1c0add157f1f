"""Measuring and showing: evaluation, parity gates, latency, predictions, the report."""
