"""W-Net (Xia and Kulis 2017): segments images after training on them without labels."""
