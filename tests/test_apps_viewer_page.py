"""The page as Gradio serves it, without a browser."""

from fastapi import FastAPI
from starlette.routing import Mount

from apps.viewer.__main__ import Options, build
from apps.viewer.page import SESSIONS, mount


def test_of_many_visits_only_the_newest_are_remembered(tmp_path):
    house, scenes = build(Options(), tmp_path)
    try:
        app = mount(FastAPI(), house, scenes)
        (gradio,) = [
            route.app for route in app.routes if isinstance(route, Mount) and hasattr(route.app, "state_holder")
        ]
        for visit in range(3 * SESSIONS):
            assert gradio.state_holder[f"visit {visit}"].config_values
        assert list(gradio.state_holder.session_data) == [
            f"visit {visit}" for visit in range(2 * SESSIONS, 3 * SESSIONS)
        ]
    finally:
        house.engine.stop()
