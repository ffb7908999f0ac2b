"""What makes the documentation site: pages from the code, flowcharts and cross references."""
