"""A page in the browser where scenes are turned, trained and filmed: `python -m apps.viewer`."""
