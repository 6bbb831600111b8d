"""The search for a schedule that measures a given speed on this machine."""
