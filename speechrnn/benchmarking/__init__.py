"""Where time goes, stage by stage, beside the machine's matrix rate."""
