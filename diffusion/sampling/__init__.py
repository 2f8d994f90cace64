"""From noise to images: samplers as tables of coefficients, their times, and the loop that runs a table."""
