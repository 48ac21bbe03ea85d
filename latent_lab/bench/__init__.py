"""What the laboratory costs beside plain training and plain decoding, on the machine at hand: ``make bench``."""
