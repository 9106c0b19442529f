"""int8 by NNCF: makes graphs, measures them against fp32, and accepts one or none."""
