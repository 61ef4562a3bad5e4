"""The component pretrain_backbone."""
