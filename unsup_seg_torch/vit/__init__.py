"""What Segmenter and DINO share: vision transformers, their attention, TokenCut, visualization."""
