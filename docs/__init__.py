"""What a user reads beyond the README, and the program that draws its picture."""
