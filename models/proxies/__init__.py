"""What a cascade foretells a language model's answer from: numbers of an ad that cost little."""
