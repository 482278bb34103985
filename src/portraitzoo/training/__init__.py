"""What GAN training shares."""
