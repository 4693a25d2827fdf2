"""From a clip or photos to a scene: frames, poses, units, files. `python -m data.capture` puts the parts together."""
