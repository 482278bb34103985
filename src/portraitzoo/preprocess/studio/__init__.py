"""The capture studio: random people who talk in front of known cameras."""
