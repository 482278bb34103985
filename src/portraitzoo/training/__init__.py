"""What GAN training shares: losses, regularisers, schedules, averaging, draws, callbacks."""
