"""The noising process: schedules, α_t and σ_t, targets, random numbers, the loss, stops of samplers, bits/dim."""
