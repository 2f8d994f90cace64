"""From noise to images: samplers as tables of coefficients, their times, guidance, the loop that runs a table."""
