"""Where objectives are evaluated: in this process, in processes beside it, or on a cluster."""
