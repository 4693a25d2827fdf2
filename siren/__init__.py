"""Sinusoidal networks (SIREN, Sitzmann et al. 2020) that stand for images, sounds, videos, shapes and PDE solutions."""
