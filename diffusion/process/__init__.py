"""The noising process: schedules, α_t and σ_t, targets, random numbers, and the loss."""
