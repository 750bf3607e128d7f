"""What was measured and what papers report: tables and figures that keep the two apart."""
