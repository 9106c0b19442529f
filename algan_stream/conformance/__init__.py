"""Does a service keep the wire protocol? `algan-stream conformance ENDPOINT` tells."""

from algan_stream.conformance import frame_rules, ring_rules
from algan_stream.conformance.lab import RULES, Lab, Verdict

__all__ = ["RULES", "Lab", "Verdict", "frame_rules", "ring_rules"]
