"""What is measured on a network itself: counts by fvcore, latency by the clock."""
