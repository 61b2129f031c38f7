"""Protection of a gateway: limits on connections, idle time and wrong tokens; allowed origins."""
